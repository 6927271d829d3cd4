"""Preconditioners for a window's Gauss-Newton matrix, from its inputs' second moments and its outputs' curvature.

Row r of a weight sees the block `sum_s (J_sr)^2 x_s x_s^T` of the Gauss-Newton matrix, which factors approximately into
`d_r X^T X` with `d_r` the mean of `(J_sr)^2` (Martens & Grosse 2015, section 3). On each row's own support that is a
masked Cholesky solve divided by `d_r`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from snowsdeploy.distributed import all_sum, number, sum_number
from snowsdeploy.models.graph import base_name
from snowsdeploy.pruning.solve.objective import Support, WindowObjective
from snowsdeploy.solver.cg import Product
from snowsdeploy.solver.least_squares import Factored

PreconditionerKind = Literal["none", "diagonal", "cholesky", "kronecker"]
_FLOOR = 1e-2  # of the mean: an estimate from few probes must not divide by almost nothing


def make_preconditioner(
    kind: PreconditionerKind, objective: WindowObjective, x: Tensor, factors: Sequence[Factored], seed: int = 0
) -> Product | None:
    """`r -> M^-1 r` on the kept coordinates.

    Args:
        kind: `none`; `diagonal` of the Gauss-Newton matrix; `cholesky`: `X^T X` in every row; `kronecker`: that with
            each row's output curvature. Vectors take the diagonal in the last two.
        objective: Gives the window, its samples and scales.
        x: Where the curvature is taken, `[kept]`.
        factors: Factors of `X^T X` of each of the window's layers.
        seed: Of the probes.
    """
    if kind == "none":
        return None
    if kind == "cholesky" and len(factors) == len(objective.support.masks):
        return _blocks(objective.support, factors, [None] * len(factors))
    rows, diagonal = _probe(objective, x, seed)
    inverse = 1 / _raise(diagonal)
    if kind == "diagonal":
        return lambda r: r * inverse
    solves = _blocks(objective.support, factors, rows if kind == "kronecker" else [None] * len(factors))
    matrices = sum(int(m.sum()) for m in objective.support.masks[: len(factors)])
    return lambda r: torch.cat([solves(r[:matrices]), r[matrices:] * inverse[matrices:]])


def _blocks(support: Support, factors: Sequence[Factored], rows: Sequence[Tensor | None]) -> Product:
    matrices = Support(support.masks[: len(factors)])

    def apply(residual: Tensor) -> Tensor:
        parts = matrices.scatter(residual)
        solved = []
        for part, factor, row in zip(parts, factors, rows, strict=True):
            flat = factor(part.flatten(1))
            solved.append((flat if row is None else flat / row.unsqueeze(1)).view(part.shape))
        return matrices.gather(solved)

    return apply


def _raise(values: Tensor) -> Tensor:
    return values.clamp_min(max(_FLOOR * float(values.mean()), torch.finfo(values.dtype).tiny))


def _probe(objective: WindowObjective, x: Tensor, seed: int) -> tuple[list[Tensor], Tensor]:
    """Hutchinson estimates with random signs: output curvature of each layer's rows, and the diagonal `[kept]`."""
    window, count = objective.window, 0
    layers = dict.fromkeys(w for w in window.weights for call in window.calls if w in call.all_input_nodes)
    masks = dict(zip(window.weights, objective.support.masks, strict=True))
    totals = {w: x.new_zeros(len(masks[w]), dtype=torch.float64) for w in layers if masks[w].dim() > 1}
    diagonal = torch.zeros_like(x, dtype=torch.float64)
    for own, sample in enumerate(objective.curvature_part):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number(own))
        leaves = [w.detach().requires_grad_() for w in objective.support.scatter(x)]
        weights = dict(zip(window.weights, leaves, strict=True))
        outputs, called = window.with_calls(weights, sample.live_ins)
        signs = [
            (torch.randint(0, 2, y.shape, generator=generator, device="cpu").to(y) * 2 - 1) * _root(2 * s)
            for y, s in zip(outputs, objective.scales, strict=True)
        ]
        inner = [y for y, _ in zip(outputs, signs, strict=True)]
        gradients = torch.autograd.grad(inner, [*leaves, *called.values()], signs, materialize_grads=True)
        diagonal += objective.support.gather(gradients[: len(leaves)]).square()
        count += 1
        for call, gradient in zip(called, gradients[len(leaves) :], strict=True):
            weight = next(w for w in totals if w in call.all_input_nodes)
            axis = -1 if base_name(call) == "linear" else 1
            totals[weight] += gradient.square().movedim(axis, 0).flatten(1).mean(1)
    used = max(sum_number(count), 1)
    rows = [_raise((all_sum(total) / used).to(x.dtype)) for total in totals.values()]
    # of all images, as the factors of the layers' inputs are
    return rows, (all_sum(diagonal) / objective.curvature_share).to(x.dtype)


def _root(scale: float | Tensor) -> float | Tensor:
    return scale.sqrt() if isinstance(scale, Tensor) else scale**0.5
