"""Loss models for pruning: what the loss would change by if a weight went (Laurent et al. 2020, arXiv 2006.12279).

With g the gradient and d the diagonal of the generalised Gauss-Newton matrix, removing w_q changes a model of the loss
by `-g_q w_q + d_q w_q^2 / 2`. Its absolute value is the score: the loss is to stay where it is. The
models are local, so the paper re-estimates them over steps, or adds a penalty on the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, final

from pydantic import Field
from torch import Tensor

from snowsdeploy.selectors.base import AbstractLossSelector, Estimate, Loss


@dataclass(frozen=True)
class AbstractLossModel(AbstractLossSelector):
    """What the three have in common.

    Attributes:
        penalty: Lambda, of the squared length of the step.
        passes: Backward passes in which the curvature sums over classes. 0 takes one for each class, which is exact;
            with fewer, half of them take each image's likeliest classes and the others draw from the rest.
        first_order: Whether the gradient's term is in the model.
        second_order: Whether the curvature's is.
    """

    steps: ClassVar[int] = 14  # section 4: the models are local; for 2:4 it means 3:4 first
    penalty: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    passes: Annotated[int, Field(ge=0)] = 0
    first_order: ClassVar[bool]
    second_order: ClassVar[bool]

    def estimate(self, loss: Loss, weights: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Estimate:
        """See `AbstractLossSelector`."""
        del kept
        g = loss.gradient(weights) if self.first_order else {}
        d = loss.curvature(weights, self.passes) if self.second_order else {}
        scores = {n: loss_score(w, g.get(n), d.get(n), self.penalty) for n, w in weights.items()}
        facts = f"curvature in {self.passes} passes over classes" if self.second_order and self.passes else ""
        return Estimate(scores, facts=facts)


@final
@dataclass(frozen=True)
class LinearModel(AbstractLossModel):
    """LM: the first-order term."""

    first_order: ClassVar[bool] = True
    second_order: ClassVar[bool] = False


@final
@dataclass(frozen=True)
class QuadraticModel(AbstractLossModel):
    """QM: both terms."""

    first_order: ClassVar[bool] = True
    second_order: ClassVar[bool] = True


@final
@dataclass(frozen=True)
class OptimalBrainDamage(AbstractLossModel):
    """OBD: the second-order term alone, as at a minimum of the loss (LeCun et al. 1990); needs no labels."""

    first_order: ClassVar[bool] = False
    second_order: ClassVar[bool] = True
    labels: ClassVar[Literal["needed", "any", "none"]] = "none"


def loss_score(weight: Tensor, gradient: Tensor | None, curvature: Tensor | None, penalty: float) -> Tensor:
    """`|-g w + d w^2 / 2| + lambda w^2 / 2`, terms that are None being zero."""
    square = weight.double().square() / 2
    change = 0 if curvature is None else curvature * square
    if gradient is not None:
        change = change - gradient * weight.double()
    assert isinstance(change, Tensor)
    return change.abs() + penalty * square
