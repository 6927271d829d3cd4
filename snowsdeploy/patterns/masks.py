"""Masks that hold a pattern, and the groups of a weight that the hardware sees."""

from __future__ import annotations

import torch
from torch import Tensor

from snowsdeploy.patterns.pattern import Pattern


def to_groups(weight: Tensor, m: int) -> Tensor:
    """View a weight as hardware groups.

    TensorRT's layout for `[K, C, R, S]` puts the m consecutive values of `c` at one `(k, r, s)` in a group; a linear
    weight `[out, in]` has its groups along `in`. Both are axis 1.

    Args:
        weight: `[K, C, ...]` with `C` a multiple of `m`.
        m: Size of a group.

    Returns:
        `[K, ..., C / m, m]`: the last axis is one group.
    """
    groups: Tensor = weight.movedim(1, -1).unflatten(-1, (-1, m))
    return groups


def from_groups(groups: Tensor) -> Tensor:
    """Inverse of `to_groups`."""
    return groups.flatten(-2).movedim(-1, 1)


def mask_by_score(score: Tensor, pattern: Pattern) -> Tensor:
    """Keep the `n` highest scores of each hardware group, or the layer's highest; ties keep the lower index.

    Args:
        score: Same shape as the weight, `[K, C, ...]`.
        pattern: How many of each group to keep.

    Returns:
        Boolean tensor of the same shape, true where a weight is kept.
    """
    if pattern.sparsity is not None:
        chosen = torch.sort(score.flatten(), descending=True, stable=True).indices[: pattern.kept(score.numel())]
        return torch.zeros_like(score, dtype=torch.bool).flatten().index_fill_(0, chosen, True).view(score.shape)
    groups = to_groups(score, pattern.m)
    order = torch.sort(groups, dim=-1, descending=True, stable=True).indices
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., : pattern.n], True)
    return from_groups(mask).contiguous()
