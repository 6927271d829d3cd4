"""Images as the model's input, read in batches by index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from snowsdeploy.artifacts import DataInfo


@dataclass(frozen=True)
class ImageSet:
    """Preprocessed images behind an index, with labels when there are any.

    Attributes:
        read: Takes item indices and returns float32 `[len(indices), C, H, W]`, preprocessed.
        indices: The items of this set, in order.
        labels: Class index of every item in `indices`, shape `[len(indices)]`; None without labels.
        info: Description for the report.
    """

    read: Callable[[Sequence[int]], Tensor]
    indices: tuple[int, ...]
    labels: NDArray[np.int64] | None
    info: DataInfo

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, batch_size: int, which: slice = slice(None)) -> Iterator[Tensor]:
        """Inputs in order, `[<= batch_size, C, H, W]` each; all batches, or some of them."""
        for start in range(0, len(self), batch_size)[which]:
            yield self.read(self.indices[start : start + batch_size])

    def sample(self, count: int, seed: int) -> ImageSet:
        """A random subset without replacement, in random order; all items when there are fewer than `count`."""
        size = min(count, len(self))
        chosen = np.random.default_rng(seed).permutation(len(self))[:size]
        indices = tuple(self.indices[i] for i in chosen)
        digest = sha256(f"{self.info.fingerprint}{indices}".encode()).hexdigest()
        return replace(
            self,
            indices=indices,
            labels=None if self.labels is None else self.labels[chosen],
            info=self.info.model_copy(update={"items": size, "fingerprint": digest}),
        )
