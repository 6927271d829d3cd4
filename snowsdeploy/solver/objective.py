"""What Newton's method minimises, and the curvature products it needs: tensors and callables only."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from snowsdeploy.solver.cg import Product


class Objective(Protocol):
    """A smooth function of one vector, known by evaluations."""

    def value(self, x: Tensor) -> float:
        """The objective at `x [n]`."""

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """The objective and its gradient `[n]`."""

    def curvature(self, x: Tensor) -> Product:
        """`v -> B v` at `x`, with B the Gauss-Newton matrix or the Hessian, both `[n]`."""

    def precondition(self, residual: Tensor) -> Tensor:
        """`M^-1 r` for a fixed positive definite `M` near the curvature, `[n]`."""
