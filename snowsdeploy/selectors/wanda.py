"""Wanda: magnitude times the norm of the input feature (Sun et al. 2024, arXiv 2306.11695).

The feature of a convolution's weight is an input channel at a kernel position, a column of its unfolded input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from snowsdeploy.selectors.base import AbstractScore, Threshold


@final
@dataclass(frozen=True)
class Wanda(AbstractScore):
    """`|w_ij| ||X_j||`; unstructured masks compare within an output row."""

    threshold: ClassVar[Threshold] = "row"

    def score(self, weight: Tensor, gram: Tensor) -> Tensor:
        """See `AbstractScore`."""
        return weight.double().abs() * gram.diagonal().clamp_min(0).sqrt()
