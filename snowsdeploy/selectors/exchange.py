"""Local search over N:M masks: exchange a kept and a pruned weight of a group while the layer's exact error falls.

A sweep such as SparseGPT's decides each group once, from left to right. With the least-squares solution on a mask at
hand, the error after any one exchange is known exactly. Let S be a row's support, `M = G[S, S]^-1`, `w` the solution
and `r = c - G w` the residual's correlations. Taking p out costs `w_p^2 / M_pp` (optimal brain surgeon, Hassibi & Stork
1993); putting q in then gains `r_q^2 / s_q` with `s_q` the Schur complement of q. Either changes M by a rank-one term,
so that an exchange costs O(d^2) a row and the best one of all groups is always taken. Wide layers are searched in
blocks of columns, the others' weights at rest meanwhile: O(d block^2) for a row in all.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, final

import torch
from pydantic import Field
from torch import Tensor

from snowsdeploy.distributed import map_in_turn
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.selectors.base import AbstractSweep, Choice
from snowsdeploy.selectors.sparsegpt import damped, sparsegpt
from snowsdeploy.solver.least_squares import masked_least_squares

_CHUNK_BYTES = {"cpu": 16 * 2**20, "cuda": 512 * 2**20}  # of the inverses: a processor's cache, and to fill a GPU
BLOCK = 256
_LEAST_GAIN = 1e-4  # of a row's error, below which an exchange is not worth its time


@final
@dataclass(frozen=True)
class Exchange(AbstractSweep):
    """The search with its setting.

    Attributes:
        block: Columns that move together, rounded down to whole groups, but one group at least.
    """

    block: Annotated[int, Field(ge=1)] = BLOCK

    def choose(self, weight: Tensor, gram: Tensor, pattern: Pattern) -> Choice:
        """See `AbstractSweep`; the weights of the search are left to the solver."""
        return Choice(exchange(weight, gram, pattern, self.block))


def exchange(weight: Tensor, gram: Tensor, pattern: Pattern, block: int = BLOCK) -> Tensor:
    """SparseGPT's mask, improved by exchanges within each group; an unstructured mask stays as it is.

    Args:
        weight: `[rows, d]`, groups of `m` consecutive columns.
        gram: `X^T X` in the same order of columns, `[d, d]`.
        pattern: N:M.
        block: Columns that move together.

    Returns:
        Boolean `[rows, d]`, true where a weight is kept.

    Raises:
        torch.linalg.LinAlgError: `gram` has a NaN.
    """
    mask = sparsegpt(weight, gram, pattern).mask
    if pattern.sparsity is not None:
        return mask
    system = damped(gram)
    width = min(len(system), max(pattern.m, block - block % pattern.m))
    chunk = _CHUNK_BYTES.get(weight.device.type, _CHUNK_BYTES["cpu"])
    step = max(1, chunk // (width * width * system.element_size()))
    parts = list(zip(weight.double().split(step), mask.split(step), strict=True))
    found = map_in_turn(lambda part: _sweep(part[0], system, part[1], pattern.m, width).cpu(), parts)
    return torch.cat(found).to(weight.device)


def _sweep(dense: Tensor, gram: Tensor, mask: Tensor, m: int, width: int) -> Tensor:
    weight = masked_least_squares(gram, dense @ gram, mask)
    residual = (dense - weight) @ gram
    least = _LEAST_GAIN * ((dense - weight) * residual).sum(1)
    chosen = []
    for start in range(0, len(gram), width):
        block = slice(start, start + width)
        within = gram[block, block]
        # what the block has to explain while the rest of the row stands still
        target = residual[:, block] + weight[:, block] @ within
        kept, solved = _improve(target, within, mask[:, block], m, least)
        residual -= (solved - weight[:, block]) @ gram[block]
        chosen.append(kept)
    return torch.cat(chosen, 1)


@dataclass(frozen=True)
class Rows:
    """Some rows solved on their supports; the tensors are updated in place.

    Attributes:
        kept: The mask by groups, `[rows, groups, m]`.
        inverse: M, zero outside the support, `[rows, d, d]`.
        weight: w, zero outside the support, `[rows, d]`.
        residual: r, zero on the support, `[rows, d]`.
        reach: Diagonal blocks of `M G`, `[rows, groups, m, m]`: entry (p, q) is what p loses when q is put in.
        schur: s, meant where pruned, `[rows, d]`.
    """

    kept: Tensor
    inverse: Tensor
    weight: Tensor
    residual: Tensor
    reach: Tensor
    schur: Tensor

    def take_out(self, gram: Tensor, p: Tensor) -> None:
        """Remove column `p [rows]` from each row's support."""
        each = torch.arange(len(p), device=p.device)
        direction = self.inverse[each, :, p]
        pivot = direction[each, p]
        self._move(gram, direction, pivot, -1, -self.weight[each, p] / pivot)
        self.kept.flatten(1)[each, p] = False

    def put_in(self, gram: Tensor, q: Tensor) -> None:
        """Add column `q [rows]` to each row's support."""
        each = torch.arange(len(q), device=q.device)
        direction = -torch.bmm(self.inverse, gram[:, q].T.unsqueeze(2)).squeeze(2)
        direction[each, q] = 1
        pivot = self.schur[each, q]
        self._move(gram, direction, pivot, 1, self.residual[each, q] / pivot)
        self.kept.flatten(1)[each, q] = True

    def _move(self, gram: Tensor, direction: Tensor, pivot: Tensor, sign: int, step: Tensor) -> None:
        # M += sign z z^T / pivot, w += step z, and what follows for G w and M G
        rows, groups, m = self.kept.shape
        unit = direction / pivot.sqrt().unsqueeze(1)
        through = unit @ gram
        self.inverse.baddbmm_(unit.unsqueeze(2), unit.unsqueeze(1), alpha=sign)
        self.reach.add_(unit.view(rows, groups, m, 1) * through.view(rows, groups, 1, m), alpha=sign)
        self.schur.sub_(through.square(), alpha=sign)
        self.weight.add_(direction * step.unsqueeze(1))
        self.residual.sub_(through * (step * pivot.sqrt()).unsqueeze(1))

    def best(self) -> tuple[Tensor, Tensor, Tensor]:
        """The cheapest exchange of each row: its change of the squared error, and the columns p and q, `[rows]`."""
        rows, groups, m = self.kept.shape
        variance = self.inverse.diagonal(dim1=1, dim2=2).reshape(rows, groups, m, 1)
        pairs = self.kept.unsqueeze(3) & ~self.kept.unsqueeze(2)
        ratio = self.weight.view(rows, groups, m, 1) / variance
        cost = self.weight.view(rows, groups, m, 1) * ratio
        correlation = self.residual.view(rows, groups, 1, m) + self.reach * ratio
        gain = correlation.square() / (self.schur.view(rows, groups, 1, m) + self.reach.square() / variance)
        change, which = torch.where(pairs, cost - gain, torch.inf).flatten(1).min(1)
        group, pair = which // (m * m), which % (m * m)
        return change, group * m + pair // m, group * m + pair % m

    def select(self, index: Tensor) -> Rows:
        """Some of the rows."""
        return Rows(*(getattr(self, field.name)[index] for field in fields(self)))


def _improve(target: Tensor, gram: Tensor, mask: Tensor, m: int, least: Tensor) -> tuple[Tensor, Tensor]:
    """Exchange while a row gains at least `least`: the mask and the weights on it."""
    kept, weight = mask.clone(), torch.zeros_like(target)
    active = torch.arange(len(mask), device=mask.device)
    rows = solve_rows(target, gram, mask, m)
    for _ in range(mask.shape[1]):
        change, p, q = rows.best()
        useful = (change < -least).nonzero().squeeze(1)
        if len(useful) < len(active):
            kept[active], weight[active] = rows.kept.flatten(1), rows.weight
            active, least, p, q = active[useful], least[useful], p[useful], q[useful]
            rows = rows.select(useful)
        if not len(active):
            break
        rows.take_out(gram, p)
        rows.put_in(gram, q)
    kept[active], weight[active] = rows.kept.flatten(1), rows.weight
    return kept, weight


def solve_rows(target: Tensor, gram: Tensor, mask: Tensor, m: int) -> Rows:
    """Solve each row of `G w = c` on its support.

    Args:
        target: c, `[rows, d]`.
        gram: G, `[d, d]`, positive definite.
        mask: Boolean `[rows, d]`.
        m: Columns in a group.

    Raises:
        torch.linalg.LinAlgError: `gram` is not positive definite on a support.
    """
    rows, d = mask.shape
    pruned = (~mask).to(gram.dtype)
    inverse = torch.where(mask.unsqueeze(2) & mask.unsqueeze(1), gram, 0.0)
    inverse.diagonal(dim1=1, dim2=2).add_(pruned)  # an identity where pruned keeps the matrix definite
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(inverse))
    inverse.diagonal(dim1=1, dim2=2).sub_(pruned)
    weight = torch.bmm(inverse, target.unsqueeze(2)).squeeze(2)
    reach = inverse @ gram
    blocks = reach.view(rows, d // m, m, d // m, m).diagonal(dim1=1, dim2=3).movedim(-1, 1).contiguous()
    schur = gram.diagonal() - (gram * reach).sum(1)
    return Rows(mask.clone().view(rows, d // m, m), inverse, weight, target - weight @ gram, blocks, schur)
