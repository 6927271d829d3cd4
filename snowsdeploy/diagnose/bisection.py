"""The differences of values and a tolerance -> the place where a file leaves its program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from snowsdeploy.values import ValueDifference

Kind = Literal["agrees", "diverges", "accumulates", "rewriting"]
NAMED = 3


def first_divergent(rows: Sequence[ValueDifference], tolerance: float) -> ValueDifference | None:
    """The first value beyond the tolerance whose inputs are all within it."""
    return next((row for row in rows if row.relative_l2 > tolerance and row.error_in <= tolerance), None)


def kind_of(first: ValueDifference | None, tolerance: float, rewriting: float) -> Kind:
    """Whether one node is to blame, many are, or ONNX Runtime's rewriting is."""
    if first is None:
        return "rewriting" if rewriting > tolerance else "agrees"
    return "accumulates" if first.added is not None and first.added < tolerance / 2 else "diverges"


def most_added(rows: Sequence[ValueDifference], count: int = NAMED) -> list[ValueDifference]:
    """The values whose nodes add most by themselves."""
    known = [row for row in rows if row.added is not None and row.reference == "torch"]
    return sorted(known, key=lambda row: row.added or 0.0, reverse=True)[:count]
