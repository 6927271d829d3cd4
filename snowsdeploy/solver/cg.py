"""Preconditioned conjugate gradients for a symmetric operator known only by its products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from snowsdeploy.solver.result import CGOutcome

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CGSolution:
    """What conjugate gradients found.

    Attributes:
        value: Approximate solution, shape `[n]`.
        outcome: Why it stopped.
        iterations: Products spent.
        model_decrease: `b.x - x.A.x / 2` with the damped A, how much the quadratic model falls from 0 to `value`.
    """

    value: Tensor
    outcome: CGOutcome
    iterations: int
    model_decrease: float


@dataclass(frozen=True)
class ConjugateGradient:
    """Solve `(A + damping M) x = b` (Nocedal & Wright, Numerical Optimization, algorithms 5.3 and 7.1).

    Attributes:
        max_iterations: Products allowed.
        relative_tolerance: Stop when the preconditioned residual norm falls below this share of its start.
        truncation: Stop when the last `max(5, k / 10)` iterations improved the quadratic model by less than this
            share per iteration (Martens 2010, section 4.4); 0 switches it off.
        damping: Of the preconditioner's matrix M, the identity without one. M itself is never needed: `M p` follows
            from `M z = r`.
    """

    max_iterations: int = 20
    relative_tolerance: float = 1e-3
    truncation: float = 5e-4
    damping: float = 0.0

    def solve(self, product: Product, b: Tensor, precondition: Product | None = None) -> CGSolution:
        """Start at zero; a direction of non-positive curvature ends the solve with the point reached so far.

        Args:
            product: `v -> A v`, both `[n]`.
            b: Right-hand side `[n]`.
            precondition: `r -> M^-1 r` with `M` positive definite; identity when None.
        """
        apply = precondition or (lambda r: r)
        x, r = torch.zeros_like(b), b.clone()
        z = apply(r)
        p, mp, rz = z.clone(), r.clone(), _dot(r, z)
        start, history = rz, [0.0]
        for iteration in range(1, self.max_iterations + 1):
            if rz <= (self.relative_tolerance**2) * start:
                return CGSolution(x, CGOutcome.CONVERGED, iteration - 1, history[-1])
            ap = product(p) + self.damping * mp if self.damping else product(p)
            curvature = _dot(p, ap)
            if curvature <= 0:
                # The first direction is a descent direction of the model whatever its curvature.
                x = p if iteration == 1 else x
                return CGSolution(x, CGOutcome.NEGATIVE_CURVATURE, iteration, history[-1])
            alpha = rz / curvature
            x, r = x + alpha * p, r - alpha * ap
            history.append(history[-1] + 0.5 * alpha * rz)
            if self._stalled(history):
                return CGSolution(x, CGOutcome.TRUNCATED, iteration, history[-1])
            z = apply(r)
            rz, previous = _dot(r, z), rz
            p, mp = z + (rz / previous) * p, r + (rz / previous) * mp
        return CGSolution(x, CGOutcome.BUDGET, self.max_iterations, history[-1])

    def _stalled(self, history: list[float]) -> bool:
        iteration = len(history) - 1
        window = max(5, iteration // 10)
        if not self.truncation or iteration <= window:
            return False
        return history[-1] - history[-1 - window] < window * self.truncation * history[-1]


def _dot(a: Tensor, b: Tensor) -> float:
    """Inner product accumulated in float64: CG's recurrences lose conjugacy in long float32 sums."""
    return float(torch.dot(a.double(), b.double()))
