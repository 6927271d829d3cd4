"""The inverse of the empirical Fisher matrix `F = lambda I + G^T G / N` of one block of weights.

WoodFisher (Singh & Alistarh 2020) adds one gradient after another by the Woodbury identity. Here the identity takes all
gradients at once, which gives the same inverse from products of matrices, and is applied in factored form:

    F^-1 = (I - G^T (N lambda I + G G^T)^-1 G) / lambda        with the smaller of the two systems factored
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class InverseFisher:
    """`F^-1` as a diagonal and a product; float64.

    Attributes:
        gradients: G, one a row, `[N, B]`.
        damping: lambda.
        factor: Lower Cholesky factor of `N lambda I + G G^T`, `[N, N]`, or of F, `[B, B]`.
    """

    gradients: Tensor
    damping: float
    factor: Tensor

    @property
    def dual(self) -> bool:
        """Whether the factor is of gradients by gradients."""
        return self.gradients.shape[0] <= self.gradients.shape[1]

    def diagonal(self) -> Tensor:
        """`[B]`, positive."""
        if not self.dual:
            inverse: Tensor = torch.cholesky_inverse(self.factor)
            return inverse.diagonal()
        explained: Tensor = torch.linalg.solve_triangular(self.factor, self.gradients, upper=False).square().sum(0)
        # rounding must not make a variance zero or negative where the gradients explain a weight entirely
        variance: Tensor = (1 - explained).clamp_min(torch.finfo(explained.dtype).eps) / self.damping
        return variance

    def __call__(self, vector: Tensor) -> Tensor:
        """`F^-1 v`, `[B]` to `[B]`."""
        if not self.dual:
            solved: Tensor = torch.cholesky_solve(vector.unsqueeze(1), self.factor)
            return solved.squeeze(1)
        inner = torch.cholesky_solve((self.gradients @ vector).unsqueeze(1), self.factor).squeeze(1)
        return (vector - inner @ self.gradients) / self.damping


def inverse_fisher(gradients: Tensor, damping: float) -> InverseFisher:
    """Factor the smaller system.

    Args:
        gradients: `[N, B]`, of single images or of mini-batches.
        damping: lambda, positive.

    Raises:
        torch.linalg.LinAlgError: A gradient is not finite.
    """
    g = gradients.double()
    count, size = g.shape
    dual = count <= size
    system = g @ g.T if dual else g.T @ g / count
    system.diagonal().add_(count * damping if dual else damping)
    return InverseFisher(g, damping, torch.linalg.cholesky(system))
