"""How a solve ended. Failure inside numerics is a value: the text says what to turn."""

from __future__ import annotations

from enum import Enum


class Outcome(Enum):
    """Why a solver stopped; the value is the message for the user."""

    CONVERGED = "converged"
    BUDGET = "stopped at the step budget"
    EXACT = "solved exactly"
    UNSOLVED = "mask and the selector's own update only"
    NO_DECREASE = "no step decreases the objective further"
    HELD_BACK = "the next step would raise the loss on held-back images"
    FLAT = "the gradient is zero: the targets are already met"
    NOT_FINITE = "the objective or its gradient is not finite; warm-start weights kept (lower the horizon)"

    @property
    def successful(self) -> bool:
        """Whether the returned point is what the solver promises."""
        return self is not Outcome.NOT_FINITE


class CGOutcome(Enum):
    """Why conjugate gradients stopped."""

    CONVERGED = "residual below the relative tolerance"
    TRUNCATED = "the quadratic model stopped improving"
    NEGATIVE_CURVATURE = "a direction of negative curvature was met"
    BUDGET = "stopped at the iteration budget"
