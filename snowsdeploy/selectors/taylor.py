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


@final
@dataclass(frozen=True)
class LinearModel(AbstractLossSelector):
    """LM: the first-order term.

    Attributes:
        penalty: Lambda, of the squared length of the step.
    """

    penalty: Annotated[float, Field(ge=0)] = 0.0

    def estimate(self, loss: Loss, weights: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Estimate:
        """See `AbstractLossSelector`."""
        del kept
        g = loss.gradient(weights)
        return Estimate({n: loss_score(w, g[n], None, self.penalty) for n, w in weights.items()})


@final
@dataclass(frozen=True)
class QuadraticModel(AbstractLossSelector):
    """QM: both terms.

    Attributes:
        penalty: Lambda, of the squared length of the step.
    """

    penalty: Annotated[float, Field(ge=0)] = 0.0

    def estimate(self, loss: Loss, weights: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Estimate:
        """See `AbstractLossSelector`."""
        del kept
        g, d = loss.gradient(weights), loss.curvature(weights)
        return Estimate({n: loss_score(w, g[n], d[n], self.penalty) for n, w in weights.items()})


@final
@dataclass(frozen=True)
class OptimalBrainDamage(AbstractLossSelector):
    """OBD: the second-order term alone, as at a minimum of the loss (LeCun et al. 1990); needs no labels.

    Attributes:
        penalty: Lambda, of the squared length of the step.
    """

    penalty: Annotated[float, Field(ge=0)] = 0.0
    labels: ClassVar[Literal["needed", "any", "none"]] = "none"

    def estimate(self, loss: Loss, weights: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Estimate:
        """See `AbstractLossSelector`."""
        del kept
        d = loss.curvature(weights)
        return Estimate({n: loss_score(w, None, d[n], self.penalty) for n, w in weights.items()})


def loss_score(weight: Tensor, gradient: Tensor | None, curvature: Tensor | None, penalty: float) -> Tensor:
    """`|-g w + d w^2 / 2| + lambda w^2 / 2`, terms that are None being zero."""
    square = weight.double().square() / 2
    change = 0 if curvature is None else curvature * square
    if gradient is not None:
        change = change - gradient * weight.double()
    assert isinstance(change, Tensor)
    return change.abs() + penalty * square
