"""SparseGPT: which weights an optimal brain surgeon's sweep would prune (Frantar & Alistarh 2023, algorithm 1).

For a layer's least squares `||X (W - V)^T||^2` with `G = X^T X`, columns are visited in order; pruning the weight of
column j costs `w_j^2 / [F^-1]_jj`, F being G on the columns not visited yet, and the rest of the row moves to make up
for it. An upper Cholesky factor U of `G^-1` holds all those inverses: `[F^-1]_jj = U_jj^2`. The weights that the
sweep arrives at are its update; a solver that follows starts from the choice alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, final

import torch
from pydantic import Field
from torch import Tensor

from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.selectors.base import AbstractSweep, Choice

BLOCK = 128
DAMPING = 1e-2  # of the mean of the diagonal, as in the paper's code


@final
@dataclass(frozen=True)
class SparseGPT(AbstractSweep):
    """The sweep with its settings.

    Attributes:
        damping: Of the mean of the Gram matrix's diagonal.
        block: Columns whose unstructured choice is made together.
    """

    damping: Annotated[float, Field(gt=0, allow_inf_nan=False)] = DAMPING
    block: Annotated[int, Field(ge=1)] = BLOCK

    def choose(self, weight: Tensor, gram: Tensor, pattern: Pattern) -> Choice:
        """See `AbstractSweep`."""
        return sparsegpt(weight, gram, pattern, damping=self.damping, block=self.block)


def sparsegpt(
    weight: Tensor, gram: Tensor, pattern: Pattern, *, damping: float = DAMPING, block: int = BLOCK
) -> Choice:
    """Choose in each group the weights that are cheapest to prune, given all groups before it.

    Args:
        weight: `[rows, d]`, groups of `m` consecutive columns.
        gram: `X^T X` in the same order of columns, `[d, d]`.
        pattern: N:M, where the choice of a group is made when the sweep reaches its first column (section 3.4); or
            unstructured, chosen for all rows of `block` columns at once (section 3.3).
        damping: Of the mean of the diagonal.
        block: Columns of an unstructured choice.

    Returns:
        The mask `[rows, d]` and the weights that the sweep ends with.

    Raises:
        torch.linalg.LinAlgError: `gram` has a NaN.
    """
    upper = _inverse_factor(damped(gram, damping))
    work = weight.double().clone()
    work[:, gram.diagonal() == 0] = 0  # weights of inputs that are always zero cost nothing
    mask = torch.ones_like(work, dtype=torch.bool)
    step = pattern.m if pattern.sparsity is None else block
    for start in range(0, work.shape[1], step):
        group = slice(start, min(start + step, work.shape[1]))
        cost = work[:, group].square() / upper.diagonal()[group].square()
        mask[:, group] = _choose(cost, start, pattern)
        errors = torch.zeros_like(cost)
        for j in range(cost.shape[1]):
            column = start + j
            lost = torch.where(mask[:, column], 0.0, work[:, column])
            errors[:, j] = lost / upper[column, column]
            work[:, column + 1 : group.stop] -= errors[:, j : j + 1] * upper[column, column + 1 : group.stop]
        work[:, group.stop :] -= errors @ upper[group, group.stop :]
    return Choice(mask, (work * mask).to(weight.dtype))


def _choose(cost: Tensor, start: int, pattern: Pattern) -> Tensor:
    if pattern.sparsity is None:
        return mask_by_score(cost, pattern)
    # what may stay up to here, less what stays before: roundings of blocks add up to the layer's
    rows, columns = cost.shape
    kept = pattern.kept(rows * (start + columns)) - pattern.kept(rows * start)
    chosen = torch.sort(cost.flatten(), descending=True, stable=True).indices[:kept]
    return torch.zeros_like(cost, dtype=torch.bool).flatten().index_fill_(0, chosen, True).view(cost.shape)


def damped(gram: Tensor, share: float = DAMPING) -> Tensor:
    """`gram` in float64 with a share of its mean diagonal added to the diagonal, so that it is definite."""
    gram = gram.double()
    damping = share * float(gram.diagonal().mean()) + torch.finfo(gram.dtype).tiny
    return gram + damping * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)


def _inverse_factor(gram: Tensor) -> Tensor:
    """Upper U with `U^T U = G^-1`."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    upper: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return upper
