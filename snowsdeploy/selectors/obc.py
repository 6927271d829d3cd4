"""OBC: the optimal brain surgeon one weight at a time, exact in every row (Frantar & Alistarh 2022).

For a row w of the layer's least squares with `H = X^T X`, pruning p costs `w_p^2 / [H^-1]_pp`, where H is on the row's
weights that are left; the others move by `-w_p [H^-1]_:p / [H^-1]_pp`, and one Gaussian elimination takes p out of
`H^-1`.
The weights at the end are the least-squares solution on the mask.

Cost: O(d^2) an elimination, O(d^3) a row, so wide layers are refused. Memory: `H^-1` of some rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor

from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.selectors.base import AbstractSweep, Choice
from snowsdeploy.selectors.sparsegpt import DAMPING, damped
from snowsdeploy.solver.least_squares import masked_least_squares

_CHUNK_BYTES = 16 * 2**20  # of the inverses, which every elimination reads: what a processor's cache holds


@final
@dataclass(frozen=True)
class OBC(AbstractSweep):
    """The greedy surgeon.

    Attributes:
        damping: Of the mean of the Gram matrix's diagonal.
    """

    damping: Annotated[float, Field(gt=0, allow_inf_nan=False)] = DAMPING
    widest: ClassVar[int | None] = 1024  # about a minute for a layer of so many rows and columns on two cores

    def choose(self, weight: Tensor, gram: Tensor, pattern: Pattern) -> Choice:
        """See `AbstractSweep`."""
        system = damped(gram, self.damping)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(system))
        step = max(1, _CHUNK_BYTES // inverse.nbytes)
        orders, costs = zip(*(_eliminate(rows, inverse, pattern) for rows in weight.double().split(step)), strict=True)
        mask = _mask(torch.cat(orders), torch.cat(costs), pattern)
        solved = masked_least_squares(system, weight.double() @ system, mask)
        return Choice(mask, solved.to(weight.dtype))


def _eliminate(weight: Tensor, inverse: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Prune each row as far as the pattern allows: the order of its columns and what each cost, `[rows, pruned]`."""
    rows, d = weight.shape
    work = weight.clone()
    state = inverse.expand(rows, d, d).clone()
    each = torch.arange(rows, device=weight.device)
    gone = torch.zeros_like(work, dtype=torch.bool)
    groups = gone.view(rows, d // pattern.m, pattern.m)
    steps = d * (pattern.m - pattern.n) // pattern.m if pattern.sparsity is None else d
    order, cost = torch.zeros(rows, steps, dtype=torch.long, device=weight.device), work.new_zeros(rows, steps)
    for t in range(steps):
        price = work.square() / state.diagonal(dim1=1, dim2=2)
        free = ~gone
        if pattern.sparsity is None:
            free &= (groups.sum(2, keepdim=True) < pattern.m - pattern.n).expand_as(groups).reshape(rows, d)
        cost[:, t], p = torch.where(free, price, torch.inf).min(1)
        order[:, t] = p
        column = state[each, :, p]
        pivot = column[each, p].unsqueeze(1)
        work -= work[each, p].unsqueeze(1) / pivot * column
        unit = column / pivot.sqrt()
        state.baddbmm_(unit.unsqueeze(2), unit.unsqueeze(1), alpha=-1)
        gone[each, p] = True
        work[each, p] = 0
        state[each, p, p] = 1  # out of the system; keeps the division defined
    return order, cost


def _mask(order: Tensor, cost: Tensor, pattern: Pattern) -> Tensor:
    """Prune all that was eliminated, or of all rows together the cheapest that are next in their row."""
    rows, steps = order.shape
    if pattern.sparsity is None:
        columns = steps * pattern.m // (pattern.m - pattern.n)
        taken = torch.ones_like(order, dtype=torch.bool)
    else:
        columns = steps
        # a weight goes only after those before it in its row: its key is the highest price up to there
        keys = cost.cummax(1).values.flatten()
        pruned = rows * columns - pattern.kept(rows * columns)
        cheapest = torch.sort(keys, stable=True).indices[:pruned]
        taken = torch.zeros_like(keys, dtype=torch.bool).index_fill_(0, cheapest, True).view(rows, steps)
    mask = torch.ones(rows, columns, dtype=torch.bool, device=order.device)
    return mask.scatter_(1, order, ~taken)
