"""N:M patterns and where their groups lie in a weight."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from snowsdeploy.errors import UsageError


@dataclass(frozen=True)
class Pattern:
    """At most `n` non-zeros in every group of `m` consecutive weights along the reduction axis."""

    n: int
    m: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`"2:4"` -> `Pattern(2, 4)`.

        Raises:
            UsageError: The text is not N:M with 0 < N < M.
        """
        match = re.fullmatch(r"\s*(\d{1,4})\s*:\s*(\d{1,4})\s*", text)
        if match:
            n, m = int(match[1]), int(match[2])
            if 0 < n < m:
                return cls(n, m)
        raise UsageError(
            "--pattern is not an N:M pattern", seen=text, allowed="N:M with 0 < N < M, for example 2:4 or 1:4"
        )

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


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
    """Keep the `n` highest scores of each hardware group; ties keep the lower index.

    Args:
        score: Same shape as the weight, `[K, C, ...]`.
        pattern: How many of each group to keep.

    Returns:
        Boolean tensor of the same shape, true where a weight is kept.
    """
    groups = to_groups(score, pattern.m)
    order = torch.sort(groups, dim=-1, descending=True, stable=True).indices
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., : pattern.n], True)
    return from_groups(mask).contiguous()


def count_violations(weight: Tensor, pattern: Pattern, axis: int = 1) -> tuple[int, int]:
    """Count groups and the groups with more than `n` non-zeros along `axis`, for a stored tensor of any layout.

    Args:
        weight: Any shape whose `axis` is a multiple of `m`.
        pattern: What to count against.
        axis: The reduction axis.

    Returns:
        `(groups, violations)`.
    """
    groups: Tensor = weight.movedim(axis, -1).unflatten(-1, (-1, pattern.m))
    violations = (groups != 0).sum(-1) > pattern.n
    return violations.numel(), int(violations.sum())
