"""SparseGPT: which weights an optimal brain surgeon's sweep would prune (Frantar & Alistarh 2023, algorithm 1).

For a layer's least squares `||X (W - V)^T||^2` with `G = X^T X`, columns are visited in order; pruning the weight of
column j costs `w_j^2 / [F^-1]_jj`, F being G on the columns not visited yet, and the rest of the row moves to make up
for it. An upper Cholesky factor U of `G^-1` holds all those inverses: `[F^-1]_jj = U_jj^2`. Only the choice is kept
here: the solver then finds the weights on it exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from snowsdeploy.sparsity.pattern import Pattern, mask_by_score

BLOCK = 128
DAMPING = 1e-2  # of the mean of the diagonal, as in the paper's code


def sparsegpt(weight: Tensor, gram: Tensor, pattern: Pattern) -> Tensor:
    """Choose in each group the weights that are cheapest to prune, given all groups before it.

    Args:
        weight: `[rows, d]`, groups of `m` consecutive columns.
        gram: `X^T X` in the same order of columns, `[d, d]`.
        pattern: N:M, where the choice of a group is made when the sweep reaches its first column (section 3.4); or
            unstructured, chosen for all rows of `BLOCK` columns at once (section 3.3).

    Returns:
        Boolean `[rows, d]`, true where a weight is kept.

    Raises:
        torch.linalg.LinAlgError: `gram` has a NaN.
    """
    upper = _inverse_factor(damped(gram))
    work = weight.double().clone()
    work[:, gram.diagonal() == 0] = 0  # weights of inputs that are always zero cost nothing
    mask = torch.ones_like(work, dtype=torch.bool)
    step = pattern.m if pattern.sparsity is None else BLOCK
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
    return mask


def _choose(cost: Tensor, start: int, pattern: Pattern) -> Tensor:
    if pattern.sparsity is None:
        return mask_by_score(cost, pattern)
    # what may stay up to here, less what stays before: roundings of blocks add up to the layer's
    rows, columns = cost.shape
    kept = pattern.kept(rows * (start + columns)) - pattern.kept(rows * start)
    chosen = torch.sort(cost.flatten(), descending=True, stable=True).indices[:kept]
    return torch.zeros_like(cost, dtype=torch.bool).flatten().index_fill_(0, chosen, True).view(cost.shape)


def damped(gram: Tensor) -> Tensor:
    """`gram` in float64 with `DAMPING` on its diagonal, so that it is definite."""
    gram = gram.double()
    damping = DAMPING * float(gram.diagonal().mean()) + torch.finfo(gram.dtype).tiny
    return gram + damping * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)


def _inverse_factor(gram: Tensor) -> Tensor:
    """Upper U with `U^T U = G^-1`."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    upper: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return upper
