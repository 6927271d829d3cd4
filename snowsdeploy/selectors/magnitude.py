"""Magnitude pruning: the largest absolute values stay (Han et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from snowsdeploy.selectors.base import AbstractScore


@final
@dataclass(frozen=True)
class Magnitude(AbstractScore):
    """`|w|`; the inputs' moments play no part."""

    reads_inputs: ClassVar[bool] = False

    def score(self, weight: Tensor, gram: Tensor) -> Tensor:
        """See `AbstractScore`."""
        del gram
        return weight.abs()
