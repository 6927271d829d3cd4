"""Damped Newton steps by conjugate gradients: Hessian-free optimisation (Martens 2010; SNOWS, algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from snowsdeploy.solver.cg import CGSolution, ConjugateGradient, Product
from snowsdeploy.solver.objective import Objective
from snowsdeploy.solver.result import CGOutcome, Outcome


@dataclass(frozen=True)
class BacktrackingLineSearch:
    """Halve the step until the objective falls enough (Nocedal & Wright, algorithm 3.1).

    Attributes:
        sufficient_decrease: Share of the linear decrease that must be reached (Armijo's constant).
        shrink: Factor between trials.
        max_trials: Evaluations allowed.
    """

    sufficient_decrease: float = 1e-4
    shrink: float = 0.5
    max_trials: int = 8

    def search(self, value: Callable[[float], float], start: float, slope: float) -> tuple[float, float]:
        """Find a step.

        Args:
            value: Objective at a step length.
            start: Objective at step 0.
            slope: Directional derivative at 0, negative.

        Returns:
            `(step, value)`; step 0 when no trial decreases the objective.
        """
        step = 1.0
        for _ in range(self.max_trials):
            trial = value(step)
            if math.isfinite(trial) and trial <= start + self.sufficient_decrease * step * slope and trial < start:
                return step, trial
            step *= self.shrink
        return 0.0, start


@dataclass(frozen=True)
class NewtonSolution:
    """Where Newton's method ended: never worse than its start.

    Attributes:
        value: The point, `[n]`.
        loss_initial: Objective at the start.
        loss: Objective at `value`.
        steps: Accepted steps.
        products: Curvature products spent.
        outcome: Why it stopped.
    """

    value: Tensor
    loss_initial: float
    loss: float
    steps: int
    products: int
    outcome: Outcome


@dataclass(frozen=True)
class NewtonCG:
    """Truncated Newton with damping adapted by the reduction ratio (Martens 2010, section 4.1).

    Attributes:
        max_steps: Newton steps.
        cg: The inner solver.
        line_search: Accepts only a decrease.
        damping: Initial damping relative to the curvature along the gradient.
        tolerance: Stop when a step lowers the objective by less than this share.
    """

    max_steps: int = 2
    cg: ConjugateGradient = field(default_factory=ConjugateGradient)
    line_search: BacktrackingLineSearch = field(default_factory=BacktrackingLineSearch)
    damping: float = 1e-3
    tolerance: float = 1e-3

    def solve(
        self,
        objective: Objective,
        start: Tensor,
        held_back: Callable[[Tensor], float] | None = None,
        on_step: Callable[[int, float], None] | None = None,
    ) -> NewtonSolution:
        """Minimise from `start [n]`.

        Args:
            objective: What to minimise.
            start: First point.
            held_back: The objective on samples that the steps do not see; a step that raises it is undone and ends
                the solve (early stopping).
            on_step: Told the number of each step, from 0, and the objective in front of it.

        Returns:
            The best point seen; a non-finite start is returned unchanged with `Outcome.NOT_FINITE`.
        """
        unseen = held_back(start) if held_back else math.inf
        x, steps, products, damping = start, 0, 0, self.damping
        loss, gradient = objective.value_and_gradient(x)
        initial, outcome = loss, Outcome.BUDGET
        for number in range(self.max_steps):
            if on_step:
                on_step(number, loss)
            if not (math.isfinite(loss) and bool(gradient.isfinite().all())):
                return NewtonSolution(start, initial, initial, 0, products, Outcome.NOT_FINITE)
            if not bool(gradient.any()):
                outcome = Outcome.FLAT
                break
            curvature = objective.curvature(x)
            scale = float(gradient @ curvature(gradient)) / float(gradient @ gradient)
            solution = self.cg.solve(_damped(curvature, damping * abs(scale)), -gradient, objective.precondition)
            products += solution.iterations + 1
            direction, slope = solution.value, float(gradient @ solution.value)
            step, reached = self.line_search.search(_along(objective, x, direction), loss, slope)
            if step == 0.0:
                outcome = Outcome.NO_DECREASE
                break
            damping *= _trust(solution, loss - reached)
            if held_back:
                before, unseen = unseen, held_back(x + step * direction)
                if not unseen < before:
                    outcome = Outcome.HELD_BACK
                    break
            x, steps, previous = x + step * direction, steps + 1, loss
            if previous - reached < self.tolerance * previous:
                loss, outcome = reached, Outcome.CONVERGED
                break
            if steps < self.max_steps:
                loss, gradient = objective.value_and_gradient(x)
            else:
                loss = reached
        return NewtonSolution(x, initial, loss, steps, products, outcome)


def _trust(solution: CGSolution, decrease: float) -> float:
    """By what the damping changes: the quadratic model is trusted as far as it foretold the decrease (section 4.1)."""
    if solution.outcome is CGOutcome.NEGATIVE_CURVATURE:
        return 1.5  # the model has no minimum, so it foretold nothing
    ratio = decrease / max(solution.model_decrease, 1e-300)
    return 2 / 3 if ratio > 0.75 else 1.5 if ratio < 0.25 else 1.0


def _damped(product: Product, damping: float) -> Product:
    return lambda v: product(v) + damping * v


def _along(objective: Objective, x: Tensor, direction: Tensor) -> Callable[[float], float]:
    return lambda step: objective.value(x + step * direction)
