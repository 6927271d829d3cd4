"""One unit's reconstruction: gather its window's inputs and targets, warm-start, take Newton steps, keep the best."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.artifacts import LayerReport
from snowsdeploy.errors import GraphError, NumericsError
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.activations import Activations
from snowsdeploy.pruning.gram import gram_matrix
from snowsdeploy.pruning.objective import Curvature, Sample, Support, WindowObjective, block_preconditioner
from snowsdeploy.pruning.schedule import Unit
from snowsdeploy.pruning.windows import Window, cut_window
from snowsdeploy.solver.least_squares import masked_cholesky
from snowsdeploy.solver.newton import NewtonCG, NewtonSolution
from snowsdeploy.solver.result import Outcome

Weights = dict[Node, Tensor]
PLAIN_HORIZON = 5


@dataclass(frozen=True)
class Reconstruction:
    """How every unit is solved.

    Attributes:
        horizon: K, counted operations after the unit's last layer; `block`: to the residual sum that it flows into.
        targets: Where the targets come from: the dense model's own activations, or the dense layers on the pruned
            prefix (SNOWS, algorithm 1).
        newton: The solver; None leaves the exact masked least squares of each layer.
        curvature: Gauss-Newton or the exact Hessian.
        curvature_batches: Batches in a curvature product; None for all.
        ridge: Damping of the least squares, relative to the mean of the Gram matrix's diagonal.
    """

    horizon: int | Literal["block"]
    targets: Literal["dense", "input"]
    newton: NewtonCG | None
    curvature: Curvature = "gauss-newton"
    curvature_batches: int | None = None
    ridge: float = 1e-3

    def window(self, graph: ProgramGraph, unit: Unit) -> Window:
        """The unit's window; in a part of the model without residual sums, a block is `PLAIN_HORIZON` operations."""
        if self.horizon != "block":
            return cut_window(graph, unit.weights, self.horizon)
        if unit.until is None:
            return cut_window(graph, unit.weights, PLAIN_HORIZON)
        return cut_window(graph, unit.weights, 0, until=unit.until)

    def solve(
        self,
        graph: ProgramGraph,
        unit: Unit,
        dense: Activations,
        pruned: Activations,
        masks: Mapping[str, Tensor],
    ) -> tuple[dict[str, Tensor], LayerReport]:
        """Reconstruct a unit's weights on their masks.

        Args:
            graph: The program's graph.
            unit: The layers.
            dense: Activations of the dense model; advanced to the unit.
            pruned: Activations of the model pruned so far; advanced to the unit.
            masks: Boolean mask of each of the unit's weights.

        Returns:
            Solved weights by name, zero outside the mask, and what happened.

        Raises:
            NumericsError: An activation is not finite, or a least-squares system cannot be factored.
        """
        started = time.perf_counter()
        window = self.window(graph, unit)
        for stream in (dense, pruned):
            stream.advance(window.calls[0])
        original = {p: pruned.value(p) for p in window.weights}
        samples = _samples(window, original, dense, pruned, self.targets)
        support = Support(tuple(masks[name] for name in unit.weights))
        warm, preconditioner = self._warm_start(window, original, support, samples, unit)
        objective = WindowObjective(window, support, samples, preconditioner, self.curvature, self.curvature_batches)
        masked = support.gather([original[p] for p in window.weights])
        start = support.gather([warm[p] for p in window.weights])
        loss_masked, loss_warm = objective.value(masked), objective.value(start)
        if not math.isfinite(loss_masked):
            raise NumericsError(
                "the window objective is not finite", seen=", ".join(unit.weights), fix="lower --horizon"
            )
        if not loss_warm <= loss_masked:
            start = masked
        solution = self._newton(objective, start, min(loss_warm, loss_masked))
        values = support.scatter(solution.value)
        for placeholder, value in zip(window.weights, values, strict=True):
            pruned.set_weight(placeholder, value)
        report = LayerReport(
            layers=tuple(name.removesuffix(".weight") for name in unit.weights),
            operations=window.operations,
            targets=self.targets,
            kept=solution.value.numel(),
            total=sum(m.numel() for m in support.masks),
            loss_masked=loss_masked,
            loss_initial=loss_warm,
            loss_final=solution.loss,
            newton_steps=solution.steps,
            products=solution.products,
            seconds=time.perf_counter() - started,
            outcome=solution.outcome.value,
        )
        return dict(zip(unit.weights, values, strict=True)), report

    def _newton(self, objective: WindowObjective, start: Tensor, loss: float) -> NewtonSolution:
        if self.newton is None:
            return NewtonSolution(start, loss, loss, 0, 0, Outcome.EXACT)
        return self.newton.solve(objective, start)

    def _warm_start(
        self, window: Window, original: Weights, support: Support, samples: Sequence[Sample], unit: Unit
    ) -> tuple[Weights, Callable[[Tensor], Tensor] | None]:
        """Exact masked least squares of each layer in turn, on inputs that the layers before it already changed.

        Its target is the dense layer on those inputs: `c = W_dense X^T X`, so that drift does not shrink the fit.
        The factors stay as the preconditioner: for K = 0 the curvature is exactly `X^T X` in every row.
        """
        current, solves = dict(original), []
        for placeholder, mask, name in zip(window.weights, support.masks, unit.weights, strict=True):
            calls = [c for c in window.calls if placeholder in c.all_input_nodes]
            gram = gram_matrix(_inputs(window, calls, current, samples))
            rows = mask.flatten(1)
            weight = original[placeholder]
            try:
                exact = masked_cholesky(gram, rows, self.ridge)
            except torch.linalg.LinAlgError as error:
                raise NumericsError(
                    "the inputs of a layer give no positive definite system", seen=name, fix="use more --samples"
                ) from error
            solves.append(exact.to(weight.dtype))
            current[placeholder] = exact(weight.flatten(1).double() @ gram).to(weight.dtype).view(weight.shape)
        return current, block_preconditioner(support, solves) if self.newton else None


def _samples(
    window: Window, weights: Weights, dense: Activations, pruned: Activations, targets: Literal["dense", "input"]
) -> list[Sample]:
    samples = []
    for batch in range(len(pruned)):
        live = pruned.live_ins(batch, window.live_ins)
        source = dense.live_ins(batch, window.live_ins) if targets == "dense" else live
        with torch.no_grad():
            samples.append(Sample(live, window(weights, source)))
    return samples


def _inputs(
    window: Window, calls: Sequence[Node], weights: Weights, samples: Sequence[Sample]
) -> Iterator[tuple[Node, Tensor]]:
    for call in calls:
        source = call.args[0]
        if not isinstance(source, Node):
            raise GraphError("a layer's input is not a value of the graph", seen=call.name)
        for sample in samples:
            with torch.no_grad():
                yield call, window.intermediate(source, weights, sample.live_ins)
