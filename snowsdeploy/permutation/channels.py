"""Names for the channels of every value in a graph, and what the operations say about them.

Each element of an axis gets an id: channel 5 of a tensor and channel 5 of another that is added to it are one channel.
Operations *tie* ids to each other, *fix* ids that cannot move, and *keep* sets of ids together: an axis must go on
holding the same channels. A permutation of the ids that respects all three can be carried out on the weights alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """Axes of a value whose elements have ids together.

    Attributes:
        dims: Ascending axes; several where an axis was split, such as heads and their channels.
        ids: `[size of each axis]`.
    """

    dims: tuple[int, ...]
    ids: Ids

    def along(self, dim: int) -> Ids:
        """The ids with one axis last, `[..., size]`."""
        return np.moveaxis(self.ids, self.dims.index(dim), -1)


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: each axis longer than one, but the batch, lies in exactly one block.

    Attributes:
        sizes: Of the axes; a multiple of `call.BATCH` where the batch is in it.
        blocks: The ids.
    """

    sizes: tuple[int, ...]
    blocks: tuple[Block, ...]

    def block(self, dim: int) -> Block | None:
        """The block that holds an axis; None for the batch and for axes of size one."""
        dim %= max(len(self.sizes), 1)
        return next((b for b in self.blocks if dim in b.dims), None)

    def single(self, dim: int) -> Block | None:
        """The block of an axis that has one for itself."""
        block = self.block(dim)
        return block if block is not None and len(block.dims) == 1 else None


@final
class Ledger:
    """What is known of the ids. It only grows; `snowsdeploy.permutation.groups` draws the conclusions."""

    def __init__(self) -> None:
        self.count = 0
        self.ties: list[tuple[Ids, Ids]] = []
        self.fixed: list[tuple[Ids, str]] = []
        self.kept: dict[bytes, Ids] = {}

    def fresh(self, shape: Iterable[int]) -> Ids:
        """New ids, free to move."""
        shape = tuple(shape)
        size = int(np.prod(shape))
        ids = np.arange(self.count, self.count + size, dtype=np.int64).reshape(shape)
        self.count += size
        return ids

    def immovable(self, shape: Iterable[int], reason: str) -> Ids:
        """Ids of an axis that stays as it is: one for all its elements."""
        one = self.fresh(())
        self.fix(one, reason)
        return np.full(tuple(shape), one, dtype=np.int64)

    def tie(self, a: Ids, b: Ids) -> None:
        """Element by element these are the same channels."""
        self.ties.append((a.ravel(), b.ravel()))

    def fix(self, ids: Ids, reason: str) -> None:
        """These channels cannot move."""
        self.fixed.append((ids.ravel(), reason))

    def keep(self, ids: Ids) -> None:
        """Each row `[..., size]` goes on holding the channels that it holds."""
        for row in ids.reshape(-1, ids.shape[-1]):
            self.kept.setdefault(row.tobytes(), row)
