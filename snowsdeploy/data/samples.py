"""Samples as the model's input, decoded and preprocessed once however often they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snowsdeploy.batch import Batch, Inputs, tensors_of
from snowsdeploy.machine import available_memory
from snowsdeploy.values import DataInfo

_SHARE = 1 / 8  # of the memory that is left: what evaluation images that are looked at again may take


@dataclass(frozen=True)
class Samples:
    """What a model takes, item by item in an order, with targets when there are any.

    Attributes:
        read: Takes item indices and returns them as the model takes them.
        indices: The items of this set, in order.
        targets: What the items are judged against, in the order of `indices`: classes `[items]`, masks, images, or
            objects of any kind; None without.
        info: Description for the report.
        decoded: What has been read already; None where every pass reads again.
        classes: Names of the class folders that the labels count; empty for other sources.
        fixed: The only number of items that may be in a batch; None for any.
        left_out: Items that do not fill such a batch.
        content: Digest of the bytes behind some items, in order; None where the origin tells them already.
    """

    read: Callable[[Sequence[int]], Batch] = field(repr=False)
    indices: tuple[int, ...] = field(repr=False)
    targets: NDArray[Any] | None = field(repr=False)
    info: DataInfo
    decoded: Decoded | None = field(default=None, repr=False)
    classes: tuple[str, ...] = field(default=(), repr=False)
    fixed: int | None = None
    left_out: int = 0
    content: Callable[[Sequence[int]], str] | None = field(default=None, repr=False)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The class of each item, `[items]`; None where the targets are something else."""
        whole = self.targets is not None and self.targets.ndim == 1 and np.issubdtype(self.targets.dtype, np.integer)
        return self.targets if whole else None

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, start: int, stop: int) -> Batch:
        """The samples at some positions of this set, `[stop - start, C, H, W]`."""
        if self.decoded is not None:
            return self.decoded.rows(start, stop)
        return self.read(self.indices[start:stop])

    def batches(self, batch_size: int, which: slice = slice(None)) -> Iterator[Batch]:
        """Inputs in order, `[<= batch_size, C, H, W]` each; all batches, or some of them."""
        batch_size = self.fixed or batch_size
        for start in range(0, len(self), batch_size)[which]:
            yield self.rows(start, min(start + batch_size, len(self)))

    def first(self, count: int, batch_size: int) -> list[Batch]:
        """The first so many samples, in batches."""
        batch_size = self.fixed or batch_size
        end = min(-(-count // batch_size) * batch_size if self.fixed else count, len(self))
        return [self.rows(start, min(start + batch_size, end)) for start in range(0, end, batch_size)]

    def in_batches_of(self, size: int) -> Self:
        """The same without what is left over after whole batches of this size, which every batch then has."""
        count = len(self) // size * size
        kept = self if count == len(self) else self.select(self.indices[:count])
        return replace(kept, fixed=size, left_out=len(self) - count)

    def remembered(self) -> Self:
        """The same samples, each decoded when it is first looked at and then kept in memory."""
        return self if self.decoded is not None else replace(self, decoded=Decoded(self.read, self.indices))

    def remembered_if_small(self) -> Self:
        """`remembered` where all of them fit easily into the memory that is left; else every pass reads again."""
        if not len(self):
            return self
        kept = self.remembered()
        one = kept.rows(0, 1)
        return kept if len(self) * one.nbytes <= _SHARE * available_memory() else self

    def identified(self) -> Self:
        """The same samples, with what they hold in their description: names and sizes of files do not tell that."""
        if self.content is None:
            return self
        content = self.content(self.indices)
        digest = sha256(f"{self.info.fingerprint}{content}".encode()).hexdigest()
        return replace(self, info=self.info.model_copy(update={"content": content, "fingerprint": digest}))

    def select(self, items: Sequence[int]) -> Self:
        """Some items of this set by their indices, in the order given.

        Raises:
            KeyError: An item is not in the set.
        """
        places = {item: place for place, item in enumerate(self.indices)}
        chosen = [places[item] for item in items]
        targets = None if self.targets is None else self.targets[chosen]
        info = self.info.model_copy(update={"items": len(chosen)})
        return replace(self, indices=tuple(items), targets=targets, info=info, decoded=None)

    def sample(self, count: int, seed: int) -> Self:
        """A random subset without replacement, in random order; all items when there are fewer than `count`."""
        size = min(count, len(self))
        chosen = np.random.default_rng(seed).permutation(len(self))[:size]
        indices = tuple(self.indices[i] for i in chosen)
        digest = sha256(f"{self.info.fingerprint}{indices}".encode()).hexdigest()
        info = self.info.model_copy(update={"items": size, "fingerprint": digest})
        targets = None if self.targets is None else self.targets[chosen]
        return replace(self, indices=indices, targets=targets, info=info, decoded=None)


@final
class Decoded:
    """Samples in memory, each read when it is first asked for.

    Args:
        read: As in `Samples`.
        indices: The items, in order.
    """

    def __init__(self, read: Callable[[Sequence[int]], Batch], indices: Sequence[int]) -> None:
        self._read, self._indices = read, indices
        self._there = np.zeros(len(indices), dtype=bool)
        self._kept: Batch | None = None

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """All of them, which are in memory already."""
        made = cls(lambda items: batch[list(items)], range(len(batch)))
        made._kept, made._there = batch, np.ones(len(batch), dtype=bool)
        return made

    def rows(self, start: int, stop: int) -> Batch:
        """A view of some of them, `[stop - start, ...]`."""
        missing = [place for place in range(start, stop) if not self._there[place]]
        if missing:
            values = self._read([self._indices[place] for place in missing])
            if self._kept is None:
                self._kept = _room(values, len(self._indices))
            for kept, new in zip(tensors_of(self._kept), tensors_of(values), strict=True):
                kept[missing] = new
            self._there[missing] = True
        assert self._kept is not None or start == stop
        return torch.empty(0) if self._kept is None else self._kept[start:stop]


def _room(like: Batch, items: int) -> Batch:
    """For so many items: memory is taken page by page, when it is written; strides decide which kernels run."""
    if isinstance(like, Inputs):
        return Inputs({name: _room_of(tensor, items) for name, tensor in like.tensors.items()})
    return _room_of(like, items)


def _room_of(like: Tensor, items: int) -> Tensor:
    return torch.empty_strided((items, *like.shape[1:]), like.stride(), dtype=like.dtype, device="cpu")
