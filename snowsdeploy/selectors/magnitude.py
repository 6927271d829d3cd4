"""Magnitude pruning: the largest absolute values stay (Han et al. 2015)."""

from __future__ import annotations

from torch import Tensor

from snowsdeploy.sparsity.pattern import Pattern, mask_by_score


def magnitude(weight: Tensor, gram: Tensor, pattern: Pattern) -> Tensor:
    """Keep the largest `|w|` of each group of `weight [rows, d]`; the inputs' moments `gram` play no part."""
    return mask_by_score(weight.abs(), pattern)
