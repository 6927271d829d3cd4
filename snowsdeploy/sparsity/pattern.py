"""Sparsity patterns: N:M with its groups where the hardware has them, and unstructured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from snowsdeploy.errors import UsageError


@dataclass(frozen=True)
class Pattern:
    """At most `n` non-zeros in every group of `m` consecutive weights along the reduction axis.

    Attributes:
        n: Weights that stay in a group.
        m: Size of a group.
        sparsity: For an unstructured pattern the share of each layer's weights that is zero, wherever they lie; its
            groups are single weights (1 of 1) and bind nothing. None for N:M.
    """

    n: int
    m: int
    sparsity: float | None = None

    @property
    def share(self) -> float:
        """Of the weights that stay."""
        return self.n / self.m if self.sparsity is None else 1 - self.sparsity

    @classmethod
    def parse(cls, text: str) -> Self:
        """`"2:4"` -> `Pattern(2, 4)`; `"80%"` -> 80 % zeros in every layer, unstructured.

        Raises:
            UsageError: The text is neither N:M with 0 < N < M nor a percentage between 0 and 100.
        """
        match = re.fullmatch(r"\s*(\d{1,4})\s*:\s*(\d{1,4})\s*", text)
        if match:
            n, m = int(match[1]), int(match[2])
            if 0 < n < m:
                return cls(n, m)
        share = re.fullmatch(r"\s*(\d{1,2}(?:\.\d{1,4})?)\s*%\s*", text)
        if share and float(share[1]) > 0:
            return cls(1, 1, float(share[1]) / 100)
        raise UsageError(
            "--pattern is not a sparsity pattern",
            seen=text,
            allowed="N:M with 0 < N < M, for example 2:4 or 1:4; or unstructured zeros, for example 80%",
        )

    def __str__(self) -> str:
        return f"{self.n}:{self.m}" if self.sparsity is None else f"{100 * self.sparsity:g}%"

    def kept(self, weights: int) -> int:
        """How many of so many weights may stay: of a group's columns, or of a layer's weights when unstructured."""
        if self.sparsity is None:
            return weights * self.n // self.m
        return weights - round(self.sparsity * weights)


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


def count_violations(weight: Tensor, pattern: Pattern, axis: int = 1) -> tuple[int, int]:
    """Count groups and the groups with more than `n` non-zeros along `axis`, for a stored tensor of any layout.

    Args:
        weight: Any shape whose `axis` is a multiple of `m`.
        pattern: What to count against.
        axis: The reduction axis.

    Returns:
        `(groups, violations)`; an unstructured pattern has one group, the whole tensor.
    """
    if pattern.sparsity is not None:
        return 1, int(int((weight != 0).sum()) > pattern.kept(weight.numel()))
    groups: Tensor = weight.movedim(axis, -1).unflatten(-1, (-1, pattern.m))
    violations = (groups != 0).sum(-1) > pattern.n
    return violations.numel(), int(violations.sum())
