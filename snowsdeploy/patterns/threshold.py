"""Scores of many layers -> masks: what is compared with what, and how sparsity rises over steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern

Scores = Mapping[str, Tensor]


def masks_by_scores(
    scores: Scores, pattern: Pattern, threshold: Literal["row", "layer", "global"], cap: float = 1.0
) -> dict[str, Tensor]:
    """Keep the highest scores.

    Args:
        scores: A tensor `[K, C, ...]` for each weight; minus infinity can only be pruned.
        pattern: N:M compares within its groups, whatever the threshold.
        threshold: Compare unstructured scores within an output row, a layer, or across all layers.
        cap: Largest share of a layer that a global threshold may prune.

    Returns:
        Boolean masks.
    """
    if pattern.sparsity is not None and threshold == "global":
        return _global(scores, pattern, cap)
    return {name: mask_of(score, pattern, threshold) for name, score in scores.items()}


def mask_of(score: Tensor, pattern: Pattern, threshold: Literal["row", "layer", "global"]) -> Tensor:
    """One layer's mask; a global threshold is the layer's own here."""
    if pattern.sparsity is None or threshold != "row":
        return mask_by_score(score, pattern)
    flat = score.flatten(1)
    rows, columns = flat.shape
    # what may stay up to a row, less what stays before: roundings of rows add up to the layer's
    ends = [pattern.kept(columns * i) for i in range(rows + 1)]
    counts = torch.tensor(ends[1:], device=score.device) - torch.tensor(ends[:-1], device=score.device)
    order = torch.sort(flat, dim=1, descending=True, stable=True).indices
    first = torch.arange(columns, device=score.device) < counts.unsqueeze(1)
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, first).view(score.shape)


def _global(scores: Scores, pattern: Pattern, cap: float) -> dict[str, Tensor]:
    total = sum(score.numel() for score in scores.values())
    # what a layer's cap protects competes no more: it stays first
    flat = [_protected(score.flatten().double(), cap) for score in scores.values()]
    mask = mask_by_score(torch.cat(flat), pattern)
    assert int(mask.sum()) == pattern.kept(total)
    parts = mask.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def _protected(score: Tensor, cap: float) -> Tensor:
    least = score.numel() - int(cap * score.numel())
    order = torch.sort(score, descending=True, stable=True).indices
    return score.index_fill(0, order[:least], torch.inf)


def sparsity_path(pattern: Pattern, steps: int) -> tuple[Pattern, ...]:
    """Patterns from near dense to the target, which is the last (Laurent et al. 2020).

    Args:
        pattern: The target.
        steps: Unstructured: the kept share falls by one factor a step. N:M: at most `m - n` steps, each with fewer
            weights in a group, such as 3:4 and then 2:4.
    """
    if pattern.sparsity is None:
        steps = min(steps, pattern.m - pattern.n)
        lost = [-(-(pattern.m - pattern.n) * i // steps) for i in range(1, steps + 1)]
        return tuple(replace(pattern, n=pattern.m - k) for k in lost)
    kept = 1 - pattern.sparsity
    before = [replace(pattern, sparsity=1 - kept ** (i / steps)) for i in range(1, steps)]
    return (*before, pattern)
