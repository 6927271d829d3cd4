"""One problem for Newton's method, its solution and what the report says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from snowsdeploy.errors import NumericsError
from snowsdeploy.pruning.flow.windows import Window
from snowsdeploy.pruning.schedule import Unit
from snowsdeploy.pruning.solve.objective import WindowObjective
from snowsdeploy.solver.least_squares import Factored
from snowsdeploy.solver.newton import NewtonSolution
from snowsdeploy.values import LayerReport


@dataclass(frozen=True)
class UnitSolution:
    """What a solve gives.

    Attributes:
        tensors: Solved tensors by name, weights zero outside their mask.
        masks: Boolean mask of each solved weight, by the weight's name.
        report: What happened.
    """

    tensors: dict[str, Tensor]
    masks: dict[str, Tensor]
    report: LayerReport


@dataclass(frozen=True)
class Solution:
    """Newton's result and its cost.

    Attributes:
        newton: Where it ended.
        seconds: Wall time of preconditioner, gradients, products and line searches.
        product_flops: Floating-point operations of one curvature product over all its images.
        precision: Of the products, in words.
    """

    newton: NewtonSolution
    seconds: float
    product_flops: float
    precision: str


@dataclass(frozen=True)
class Problem:
    """An objective with its start.

    Attributes:
        objective: On the images that the solver sees.
        held_back: The same on those that it does not see.
        start: First point, `[kept]`.
        factors: Factors of each layer's inputs.
        loss_masked: Objective with the masks applied and nothing solved.
        loss_start: Objective of the warm start.
    """

    objective: WindowObjective
    held_back: WindowObjective | None
    start: Tensor
    factors: tuple[Factored, ...]
    loss_masked: float
    loss_start: float

    def report(self, unit: Unit, window: Window, solution: Solution, *, targets: str, seconds: float) -> LayerReport:
        """What happened, with the objective on held-back images before and after where there are any.

        Raises:
            NumericsError: The objective is not finite somewhere: activations are too large to be squared.
        """
        newton = solution.newton
        unseen = [self.held_back.value(x) for x in (self.start, newton.value)] if self.held_back else [None, None]
        losses = (self.loss_masked, self.loss_start, newton.loss, *(value for value in unseen if value is not None))
        if not all(map(math.isfinite, losses)):
            raise NumericsError(
                "the window objective is not finite",
                seen=f"{', '.join(unit.names)}: {', '.join(f'{loss:g}' for loss in losses)}",
                allowed="activations whose squares are finite",
                fix="check the images; lower --horizon",
            )
        masks = self.objective.support.masks[: len(unit.layers)]
        return LayerReport(
            layers=unit.names,
            operations=window.operations,
            targets=targets,
            kept=sum(int(m.sum()) for m in masks),
            total=sum(m.numel() for m in masks),
            vectors=len(window.weights) - len(unit.layers),
            loss_masked=self.loss_masked,
            loss_initial=self.loss_start,
            loss_final=newton.loss,
            held_back_initial=unseen[0],
            held_back_final=unseen[1],
            newton_steps=newton.steps,
            products=newton.products,
            product_flops=solution.product_flops,
            product_precision=solution.precision,
            newton_seconds=solution.seconds,
            seconds=seconds,
            outcome=newton.outcome.value,
        )
