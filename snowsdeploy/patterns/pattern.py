"""Sparsity patterns: N:M with its groups where the hardware has them, and unstructured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

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
        match = re.fullmatch(r"\s*(\d{1,4})\s*:\s*(\d{1,4})\s*", text, re.ASCII)
        if match:
            n, m = int(match[1]), int(match[2])
            if 0 < n < m:
                return cls(n, m)
        share = re.fullmatch(r"\s*(\d{1,2}(?:\.\d{1,4})?)\s*%\s*", text, re.ASCII)
        if share and float(share[1]) > 0:
            return cls(1, 1, float(share[1]) / 100)
        raise UsageError(
            "--pattern is not a sparsity pattern",
            seen=text,
            allowed="N:M with 0 < N < M, for example 2:4 or 1:4; or unstructured zeros, for example 80%",
            fix="write --pattern 2:4, or leave --pattern out, which means the same",
        )

    def __str__(self) -> str:
        return f"{self.n}:{self.m}" if self.sparsity is None else f"{100 * self.sparsity:g}%"

    def kept(self, weights: int) -> int:
        """How many of so many weights may stay: of a group's columns, or of a layer's weights when unstructured."""
        if self.sparsity is None:
            return weights * self.n // self.m
        return weights - round(self.sparsity * weights)
