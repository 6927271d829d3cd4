"""Cases of the rules by operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.models.onnx.check import Case

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Entry:
    name: str
    operators: tuple[str, ...]
    opsets: tuple[int, ...]
    build: Callable[[Draw, int], Case]


CASES: list[Entry] = []
ALL = (9, 11, 13, 17, 20, 21, 23)


def case(*operators: str, opsets: Sequence[int] = ALL) -> Callable[[Any], Any]:
    """Register a function from hypothesis's draw and an opset to a case."""

    def register(build: Callable[[Draw, int], Case]) -> Callable[[Draw, int], Case]:
        CASES.append(Entry(build.__name__.strip("_"), operators, tuple(opsets), build))
        return build

    return register


def reals(draw: Draw, *shape: int, low: float = -3, high: float = 3) -> np.ndarray[Any, Any]:
    seed = draw(st.integers(0, 1 << 16))
    return np.asarray(np.random.default_rng(seed).uniform(low, high, shape), np.float32)


def integers(draw: Draw, *shape: int, low: int = -5, high: int = 5) -> np.ndarray[Any, Any]:
    seed = draw(st.integers(0, 1 << 16))
    return np.asarray(np.random.default_rng(seed).integers(low, high, shape, dtype=np.int64))


def bools(draw: Draw, *shape: int) -> np.ndarray[Any, Any]:
    return np.asarray(integers(draw, *shape) > 0)


def ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def shape_of(draw: Draw, low: int = 1, high: int = 4, size: int = 4) -> list[int]:
    return list(draw(st.lists(st.integers(1, size), min_size=low, max_size=high)))


def one_of(draw: Draw, *values: Any) -> Any:
    return draw(st.sampled_from(values))


def up_to(draw: Draw, low: int, high: int) -> int:
    return int(draw(st.integers(low, high)))


def axes_of(draw: Draw, rank: int, *, least: int = 1) -> list[int]:
    axes = draw(st.lists(st.integers(0, rank - 1), min_size=least, max_size=rank, unique=True))
    return [axis - rank if draw(st.booleans()) else axis for axis in sorted(axes)]
