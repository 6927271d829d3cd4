"""`path[slice]`: a Python slice behind a data source selects items."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from snowsdeploy.errors import DataError

_SLICE = re.compile(r"^(?P<source>.*)\[(?P<slice>[^\[\]]*)\]$", re.DOTALL)

_NUMBER = re.compile(r"(-?[0-9]{1,18})?")
_EXAMPLES = "[start:stop] or [start:stop:step], like [0::2]"


@dataclass(frozen=True)
class Selection:
    """A data source and which of its items are meant."""

    source: str
    items: slice

    def indices(self, size: int) -> tuple[int, ...]:
        """The chosen indices of `size` items, in order.

        Raises:
            DataError: None is chosen, or there is none.
        """
        if not size:
            raise DataError(
                "the data source holds no item",
                seen=self.source,
                allowed="at least one item",
                fix="check that it was written completely, or name another source",
            )
        chosen = tuple(range(size))[self.items]
        if not chosen:
            raise DataError(
                "the slice selects no item",
                seen=str(self),
                allowed=f"a slice that keeps some of the {size} items there are",
                fix="change the numbers in the brackets, or leave the brackets out",
            )
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
    if not text:
        raise DataError(
            "the data source is empty",
            seen="''",
            allowed="a path or a data set name",
            fix="name the images with --data or --eval-data; a shell variable may be unset",
        )
    match = _SLICE.match(text)
    if _exists(text) or (match is None and not text.endswith(("[", "]"))):
        return Selection(text, slice(None))
    if match is None or (match["source"].endswith("]") and not _exists(match["source"])):
        raise DataError(
            "the slice behind the data source is malformed",
            seen=text,
            allowed=_EXAMPLES,
            fix="write one slice in brackets at the end, and quote the whole for the shell",
        )
    if not match["source"]:
        raise DataError(
            "the data source is only a slice",
            seen=text,
            allowed=_EXAMPLES,
            fix=f"write the path before the slice: images/{text}",
        )
    parts = [part.strip() for part in match["slice"].split(":")]
    numbers = [int(part) if part else None for part in parts] if all(map(_NUMBER.fullmatch, parts)) else []
    if len(numbers) not in (2, 3) or (len(numbers) == 3 and numbers[2] == 0):
        raise DataError(
            "what stands in brackets behind the data source is not a Python slice",
            seen=f"[{match['slice']}]",
            allowed=_EXAMPLES,
            fix="write [start:stop] or [start:stop:step] with whole numbers and a step other than 0",
        )
    return Selection(match["source"], slice(*numbers))


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # a name that no file can have
        return False
