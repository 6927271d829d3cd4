"""How a tensor of the file is laid out in the module: permutations and reshapes that can be undone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Permute:
    """Axes in another order.

    Attributes:
        axes: For each axis of the result, the axis that it was.
    """

    axes: tuple[int, ...]

    def inverse(self) -> Permute:
        """The step that undoes this one."""
        return Permute(tuple(self.axes.index(axis) for axis in range(len(self.axes))))


@dataclass(frozen=True)
class Reshape:
    """The same elements in another shape."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def inverse(self) -> Reshape:
        """The step that undoes this one."""
        return Reshape(self.after, self.before)


Step = Permute | Reshape
Steps = tuple[Step, ...]
TRANSPOSED: Steps = (Permute((1, 0)),)


def joined(steps: Iterable[Step]) -> Steps:
    """The same change in as few steps as possible, so that equal changes compare equal in the usual cases."""
    result: list[Step] = []
    for step in steps:
        last = result[-1] if result else None
        merged: Step = step
        if isinstance(step, Permute) and isinstance(last, Permute):
            merged = Permute(tuple(last.axes[axis] for axis in step.axes))
            result.pop()
        elif isinstance(step, Reshape) and isinstance(last, Reshape):
            merged = Reshape(last.before, step.after)
            result.pop()
        if not _changes_nothing(merged):
            result.append(merged)
    return tuple(result)


def _changes_nothing(step: Step) -> bool:
    if isinstance(step, Permute):
        return step.axes == tuple(range(len(step.axes)))
    return step.before == step.after


def inverse(steps: Steps) -> Steps:
    """The steps that undo these."""
    return tuple(step.inverse() for step in reversed(steps))


def arranged(value: Array, steps: Steps) -> Array:
    """An array after the steps."""
    for step in steps:
        value = value.transpose(step.axes) if isinstance(step, Permute) else value.reshape(step.after)
    return value


def arranged_tensor(value: Tensor, steps: Steps) -> Tensor:
    """A tensor after the steps."""
    for step in steps:
        value = value.permute(step.axes) if isinstance(step, Permute) else value.reshape(step.after)
    return value


def shape_after(shape: tuple[int, ...], steps: Steps) -> tuple[int, ...]:
    """The shape that a tensor has after the steps."""
    for step in steps:
        shape = tuple(shape[axis] for axis in step.axes) if isinstance(step, Permute) else step.after
    return shape


def resolved_shape(shape: tuple[int, ...], wanted: Iterable[int], *, zero_copies: bool) -> tuple[int, ...]:
    """The shape that ONNX's Reshape asks for, with -1 and 0 replaced by numbers."""
    sizes = [shape[at] if size == 0 and zero_copies else size for at, size in enumerate(wanted)]
    known = math.prod(size for size in sizes if size != -1)
    return tuple(math.prod(shape) // max(known, 1) if size == -1 else size for size in sizes)
