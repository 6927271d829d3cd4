"""Masked least squares, solved exactly: the case of a window that ends at the layer itself.

For one output row w with kept positions Z: minimise `||X w - t||^2` over w supported on Z. With `G = X^T X` and
`c = X^T t` the kept part solves `G[Z, Z] w[Z] = c[Z]`; every row has its own Z, so rows are batched by padding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

_CHUNK_BYTES = 256 * 2**20


@dataclass(frozen=True)
class MaskedCholesky:
    """Cholesky factors of `G[Z, Z]` for every row's support Z.

    Attributes:
        positions: Kept positions of each row first, padded to the widest row, `[rows, width]`.
        valid: Which of them are kept and not padding, `[rows, width]`.
        factors: Lower factors, a chunk of rows each, `[chunk, width, width]`.
    """

    positions: Tensor
    valid: Tensor
    factors: tuple[Tensor, ...]

    def __call__(self, rhs: Tensor) -> Tensor:
        """Solve each row on its support; `[rows, d]` to `[rows, d]`, zero elsewhere."""
        kept = torch.gather(rhs.to(self.factors[0].dtype), 1, self.positions) * self.valid
        parts = kept.unsqueeze(2).split([len(factor) for factor in self.factors])
        solved = [torch.cholesky_solve(part, factor) for part, factor in zip(parts, self.factors, strict=True)]
        values = torch.cat(solved).squeeze(2) * self.valid
        out = torch.zeros(rhs.shape, dtype=values.dtype, device=rhs.device)
        return out.scatter_add_(1, self.positions, values).to(rhs.dtype)

    def to(self, dtype: torch.dtype) -> MaskedCholesky:
        """The same factors in another precision."""
        return replace(self, factors=tuple(factor.to(dtype) for factor in self.factors))


def masked_cholesky(gram: Tensor, mask: Tensor, damping: float) -> MaskedCholesky:
    """Factor `G[Z, Z] + damping * mean(diag G) I` for every row's support.

    Args:
        gram: `[d, d]`, symmetric positive semi-definite, `X^T X` over all samples.
        mask: Boolean `[rows, d]`, true where a weight is kept.
        damping: Relative to the mean of the diagonal; keeps the factor defined when inputs are collinear.

    Returns:
        The factors, a function of right-hand sides.

    Raises:
        torch.linalg.LinAlgError: A damped block is not positive definite (a NaN in `gram`, or damping too small).
    """
    rows, _ = mask.shape
    width = max(int(mask.sum(1).max()), 1)
    # Kept positions first, padded with pruned ones; the padding is an identity block, so that it solves to zero.
    positions = torch.argsort(mask.to(torch.int8), dim=1, descending=True, stable=True)[:, :width]
    valid = torch.gather(mask, 1, positions)
    ridge = damping * float(gram.diagonal().mean()) + torch.finfo(gram.dtype).tiny
    step = max(1, _CHUNK_BYTES // (width * width * gram.element_size()))
    factors = []
    for start in range(0, rows, step):
        index, live = positions[start : start + step], valid[start : start + step]
        block = gram[index.unsqueeze(2), index.unsqueeze(1)]
        block = block * (live.unsqueeze(2) & live.unsqueeze(1))
        block.diagonal(dim1=1, dim2=2).add_(torch.where(live, ridge, 1.0))
        factors.append(torch.linalg.cholesky(block))
    return MaskedCholesky(positions, valid, tuple(factors))


def masked_least_squares(gram: Tensor, cross: Tensor, mask: Tensor, damping: float = 0.0) -> Tensor:
    """Minimise `||X W^T - T||^2` over W supported on the mask, each row exactly.

    Args:
        gram: `X^T X`, `[d, d]`.
        cross: `T^T X`, `[rows, d]`.
        mask: Boolean `[rows, d]`.
        damping: As in `masked_cholesky`.

    Returns:
        `[rows, d]` in the dtype of `cross`.

    Raises:
        torch.linalg.LinAlgError: As `masked_cholesky`.
    """
    return masked_cholesky(gram, mask, damping)(cross)
