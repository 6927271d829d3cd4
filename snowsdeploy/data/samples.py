"""Samples as the model's input, decoded and preprocessed once however often they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snowsdeploy.machine import available_memory
from snowsdeploy.values import DataInfo

_SHARE = 1 / 8  # of the memory that is left: what evaluation images that are looked at again may take


@dataclass(frozen=True)
class Samples:
    """Preprocessed images in an order, with labels when there are any.

    Attributes:
        read: Takes item indices and returns float32 `[len(indices), C, H, W]`, preprocessed.
        indices: The items of this set, in order.
        labels: Class index of every item in `indices`, shape `[len(indices)]`; None without labels.
        info: Description for the report.
        decoded: What has been read already; None where every pass reads again.
        classes: Names of the class folders that the labels count; empty for other sources.
    """

    read: Callable[[Sequence[int]], Tensor] = field(repr=False)
    indices: tuple[int, ...] = field(repr=False)
    labels: NDArray[np.int64] | None = field(repr=False)
    info: DataInfo
    decoded: Decoded | None = field(default=None, repr=False)
    classes: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, start: int, stop: int) -> Tensor:
        """The samples at some positions of this set, `[stop - start, C, H, W]`."""
        if self.decoded is not None:
            return self.decoded.rows(start, stop)
        return self.read(self.indices[start:stop])

    def batches(self, batch_size: int, which: slice = slice(None)) -> Iterator[Tensor]:
        """Inputs in order, `[<= batch_size, C, H, W]` each; all batches, or some of them."""
        for start in range(0, len(self), batch_size)[which]:
            yield self.rows(start, min(start + batch_size, len(self)))

    def first(self, count: int, batch_size: int) -> list[Tensor]:
        """The first so many samples, in batches."""
        end = min(count, len(self))
        return [self.rows(start, min(start + batch_size, end)) for start in range(0, end, batch_size)]

    def remembered(self) -> Self:
        """The same samples, each decoded when it is first looked at and then kept in memory."""
        return self if self.decoded is not None else replace(self, decoded=Decoded(self.read, self.indices))

    def remembered_if_small(self) -> Self:
        """`remembered` where all of them fit easily into the memory that is left; else every pass reads again."""
        if not len(self):
            return self
        kept = self.remembered()
        one = kept.rows(0, 1)
        return kept if len(self) * one.numel() * one.itemsize <= _SHARE * available_memory() else self

    def select(self, items: Sequence[int]) -> Self:
        """Some items of this set by their indices, in the order given.

        Raises:
            KeyError: An item is not in the set.
        """
        places = {item: place for place, item in enumerate(self.indices)}
        chosen = [places[item] for item in items]
        labels = None if self.labels is None else self.labels[chosen]
        info = self.info.model_copy(update={"items": len(chosen)})
        return replace(self, indices=tuple(items), labels=labels, info=info, decoded=None)

    def sample(self, count: int, seed: int) -> Self:
        """A random subset without replacement, in random order; all items when there are fewer than `count`."""
        size = min(count, len(self))
        chosen = np.random.default_rng(seed).permutation(len(self))[:size]
        indices = tuple(self.indices[i] for i in chosen)
        digest = sha256(f"{self.info.fingerprint}{indices}".encode()).hexdigest()
        info = self.info.model_copy(update={"items": size, "fingerprint": digest})
        labels = None if self.labels is None else self.labels[chosen]
        return replace(self, indices=indices, labels=labels, info=info, decoded=None)


@final
class Decoded:
    """Samples in memory, each read when it is first asked for.

    Args:
        read: As in `Samples`.
        indices: The items, in order.
    """

    def __init__(self, read: Callable[[Sequence[int]], Tensor], indices: Sequence[int]) -> None:
        self._read, self._indices = read, indices
        self._there = np.zeros(len(indices), dtype=bool)
        self._tensor: Tensor | None = None

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """All of them, `[n, C, H, W]`, which are in memory already."""
        made = cls(lambda items: tensor[list(items)], range(len(tensor)))
        made._tensor, made._there = tensor, np.ones(len(tensor), dtype=bool)
        return made

    def rows(self, start: int, stop: int) -> Tensor:
        """A view of some of them, `[stop - start, ...]`."""
        missing = [place for place in range(start, stop) if not self._there[place]]
        if missing:
            values = self._read([self._indices[place] for place in missing])
            if self._tensor is None:
                # memory is taken page by page, when it is written; strides decide which kernels run
                shape = (len(self._indices), *values.shape[1:])
                self._tensor = torch.empty_strided(shape, values.stride(), dtype=values.dtype, device="cpu")
            self._tensor[missing] = values
            self._there[missing] = True
        assert self._tensor is not None or start == stop
        return torch.empty(0) if self._tensor is None else self._tensor[start:stop]
