"""Magnitude pruning: the score of a weight is its absolute value (Han et al. 2015)."""

from __future__ import annotations

from torch import Tensor


def magnitude(weight: Tensor) -> Tensor:
    """Score `|w|`, same shape as the weight."""
    return weight.abs()
