"""Masked least squares, solved exactly: the case of a window that ends at the layer itself.

For one output row w with kept positions Z: minimise `||X w - t||^2 + r ||w - a||^2` over w supported on Z. With
`G = X^T X` and `c = X^T t` the kept part solves `(G + r I)[Z, Z] w[Z] = (c + r a)[Z]`; every row has its own Z, so rows
are batched by padding. The anchor a is where the inputs say nothing: at the dense weights, a layer of which nothing is
pruned stays as it is, and so does a weight whose input is always zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK_BYTES = 256 * 2**20
WORK_BYTES = 3 * _CHUNK_BYTES  # of a chunk: what is gathered and factored
KEPT_BYTES = 2**30  # of one layer's factors, kept as a preconditioner


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


@dataclass(frozen=True)
class SharedCholesky:
    """One factor of the whole G for all rows: `Z G^-1 Z` in place of `G[Z, Z]^-1`, where the latter do not fit.

    Attributes:
        mask: Boolean `[rows, d]`.
        factor: Lower factor, `[d, d]`.
    """

    mask: Tensor
    factor: Tensor

    def __call__(self, rhs: Tensor) -> Tensor:
        """Symmetric positive definite on the support; `[rows, d]` to `[rows, d]`, zero elsewhere."""
        kept = (rhs * self.mask).to(self.factor.dtype)
        return (torch.cholesky_solve(kept.T, self.factor).T * self.mask).to(rhs.dtype)


Factored = MaskedCholesky | SharedCholesky


def masked_least_squares(
    gram: Tensor,
    cross: Tensor,
    mask: Tensor,
    damping: float = 0.0,
    *,
    anchor: Tensor | None = None,
    chunk_bytes: int = _CHUNK_BYTES,
) -> Tensor:
    """Minimise `||X W^T - T||^2 + r ||W - A||^2` over W supported on the mask, each row exactly, some rows at a time.

    Args:
        gram: `[d, d]`, symmetric positive semi-definite, `X^T X` over all samples.
        cross: `T^T X`, `[rows, d]`.
        mask: Boolean `[rows, d]`, true where a weight is kept.
        damping: r relative to the mean of the diagonal; keeps the factor defined when inputs are collinear.
        anchor: A, `[rows, d]`; zero where None.
        chunk_bytes: Most bytes of the systems in memory together, but one row's at least.

    Returns:
        `[rows, d]` in the dtype of `cross`.

    Raises:
        torch.linalg.LinAlgError: A damped block is not positive definite (a NaN in `gram`, or damping too small).
    """
    positions, valid = _positions(mask)
    ridge = _ridge(gram, damping)
    cross = _anchored(cross, anchor, ridge)
    chunks = _chunks(gram, positions, chunk_bytes)
    # a chunk's factor is gone before the next one is made
    return torch.cat([_solve_chunk(gram, cross[c], positions[c], valid[c], ridge)[0] for c in chunks])


def solve_and_factor(
    gram: Tensor,
    cross: Tensor,
    mask: Tensor,
    damping: float,
    *,
    anchor: Tensor | None = None,
    dtype: torch.dtype,
    limit: int = KEPT_BYTES,
    chunk_bytes: int = _CHUNK_BYTES,
) -> tuple[Tensor, Factored]:
    """`masked_least_squares` and what preconditions the layer: each row's own factor where all of them fit.

    Args:
        gram: As in `masked_least_squares`.
        cross: As there.
        mask: As there.
        damping: As there.
        anchor: As there.
        dtype: Of the factors that are kept.
        limit: Most bytes of the rows' own factors; beyond it one factor serves all rows.
        chunk_bytes: As there.

    Raises:
        torch.linalg.LinAlgError: As there.
    """
    positions, valid = _positions(mask)
    if len(mask) * positions.shape[1] ** 2 * dtype.itemsize > limit:
        ridged = gram + _ridge(gram, damping) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        shared = SharedCholesky(mask, torch.linalg.cholesky(ridged).to(dtype))
        return masked_least_squares(gram, cross, mask, damping, anchor=anchor, chunk_bytes=chunk_bytes), shared
    ridge, solved, factors = _ridge(gram, damping), [], []
    cross = _anchored(cross, anchor, ridge)
    for c in _chunks(gram, positions, chunk_bytes):
        values, factor = _solve_chunk(gram, cross[c], positions[c], valid[c], ridge)
        solved.append(values)
        factors.append(factor.to(dtype))
        del factor  # before the next one is made
    return torch.cat(solved), MaskedCholesky(positions, valid, tuple(factors))


def _chunks(gram: Tensor, positions: Tensor, chunk_bytes: int) -> Iterator[slice]:
    """Rows whose systems are in memory together."""
    rows, width = positions.shape
    step = max(1, chunk_bytes // (width * width * gram.element_size()))
    return (slice(start, start + step) for start in range(0, rows, step))


def _solve_chunk(gram: Tensor, cross: Tensor, positions: Tensor, valid: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Some rows' solutions and the factors of `G[Z, Z] + ridge I`; padding is an identity block, and solves to zero."""
    block = gram[positions.unsqueeze(2), positions.unsqueeze(1)]
    block.mul_(valid.unsqueeze(2) & valid.unsqueeze(1))
    block.diagonal(dim1=1, dim2=2).add_(torch.where(valid, gram.new_tensor(ridge), gram.new_ones(())))
    factor = torch.linalg.cholesky(block)
    del block
    return MaskedCholesky(positions, valid, (factor,))(cross), factor


def _positions(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Kept positions first, padded with pruned ones, and which are no padding, `[rows, width]` each."""
    width = max(int(mask.sum(1).max()), 1)
    positions = torch.argsort(mask.to(torch.int8), dim=1, descending=True, stable=True)[:, :width]
    return positions, torch.gather(mask, 1, positions)


def _anchored(cross: Tensor, anchor: Tensor | None, ridge: float) -> Tensor:
    return cross if anchor is None else cross + ridge * anchor.to(cross)


def _ridge(gram: Tensor, damping: float) -> float:
    """Where all inputs are zero, anything fits: damping alone keeps the factor defined, in single precision too."""
    mean = float(gram.diagonal().mean())
    return damping * mean + torch.finfo(gram.dtype).tiny if mean else max(damping, 1e-6)
