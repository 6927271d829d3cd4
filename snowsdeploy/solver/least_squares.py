"""Masked least squares, solved exactly: the case of a window that ends at the layer itself.

For one output row w with kept positions Z: minimise `||X w - t||^2` over w supported on Z. With `G = X^T X` and
`c = X^T t` the kept part solves `G[Z, Z] w[Z] = c[Z]`; every row has its own Z, so rows are batched by padding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_CHUNK_BYTES = 256 * 2**20


def masked_cholesky(gram: Tensor, mask: Tensor, damping: float) -> Callable[[Tensor], Tensor]:
    """Factor `G[Z, Z] + damping * mean(diag G) I` for every row's support.

    Args:
        gram: `[d, d]`, symmetric positive semi-definite, `X^T X` over all samples.
        mask: Boolean `[rows, d]`, true where a weight is kept.
        damping: Relative to the mean of the diagonal; keeps the factor defined when inputs are collinear.

    Returns:
        A function `rhs [rows, d] -> [rows, d]` that solves each row on its support and is zero elsewhere.

    Raises:
        torch.linalg.LinAlgError: A damped block is not positive definite (a NaN in `gram`, or damping too small).
    """
    rows, _ = mask.shape
    width = max(int(mask.sum(1).max()), 1)
    # Kept positions first, padded with position 0; the padding is an identity block, so that it solves to zero.
    positions = torch.argsort(mask.to(torch.int8), dim=1, descending=True, stable=True)[:, :width]
    valid = torch.gather(mask, 1, positions)
    ridge = damping * float(gram.diagonal().mean()) + torch.finfo(gram.dtype).tiny
    step = max(1, _CHUNK_BYTES // (width * width * gram.element_size()))
    factors: list[Tensor] = []
    for start in range(0, rows, step):
        index, live = positions[start : start + step], valid[start : start + step]
        block = gram[index.unsqueeze(2), index.unsqueeze(1)]
        block = block * (live.unsqueeze(2) & live.unsqueeze(1))
        block.diagonal(dim1=1, dim2=2).add_(torch.where(live, ridge, 1.0))
        factors.append(torch.linalg.cholesky(block))

    def solve(rhs: Tensor) -> Tensor:
        kept = torch.gather(rhs.to(gram.dtype), 1, positions) * valid
        solved = [
            torch.cholesky_solve(kept[k * step : k * step + len(factor)].unsqueeze(2), factor).squeeze(2)
            for k, factor in enumerate(factors)
        ]
        out = torch.zeros(rhs.shape, dtype=gram.dtype, device=rhs.device)
        return out.scatter_add_(1, positions, torch.cat(solved) * valid).to(rhs.dtype)

    return solve


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
