"""`path[slice]`: a Python slice behind a data source selects items."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from snowsdeploy.errors import DataError

_SLICE = re.compile(r"^(?P<source>.*)\[(?P<slice>[^\[\]]*)\]$", re.DOTALL)


@dataclass(frozen=True)
class Selection:
    """A data source and which of its items are meant."""

    source: str
    items: slice

    def indices(self, size: int) -> tuple[int, ...]:
        """The chosen indices of `size` items, in order.

        Raises:
            DataError: None is chosen.
        """
        chosen = tuple(range(size))[self.items]
        if not chosen:
            raise DataError("the slice selects no item", seen=str(self), allowed=f"a slice of {size} items")
        return chosen

    def __str__(self) -> str:
        parts = [self.items.start, self.items.stop, self.items.step]
        text = ":".join("" if p is None else str(p) for p in parts).removesuffix(":")
        return self.source if self.items == slice(None) else f"{self.source}[{text}]"


def parse_selection(text: str) -> Selection:
    """`images/[0::2]` -> `Selection("images/", slice(0, None, 2))`; without brackets, everything.

    A path that exists with its brackets is meant as it is.

    Raises:
        DataError: What stands in brackets is not a slice, or nothing stands before them.
    """
    match = _SLICE.match(text)
    if match is None or Path(text).exists():
        if not text:
            raise DataError("the data source is empty", allowed="a path or a data set name")
        return Selection(text, slice(None))
    if not match["source"]:
        raise DataError("the data source is only a slice", seen=text, allowed="a path before it, like images/[0::2]")
    parts = match["slice"].split(":")
    try:
        numbers = [int(p) if p.strip() else None for p in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or (len(numbers) == 3 and numbers[2] == 0):
        raise DataError(
            "not a Python slice", seen=f"[{match['slice']}]", allowed="[start:stop] or [start:stop:step], like [0::2]"
        )
    return Selection(match["source"], slice(*numbers))
