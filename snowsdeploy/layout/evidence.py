"""Layout facts of one tensor, and of a file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.violations import count_violations
from snowsdeploy.values import LayerSparsity, SparsityEvidence, layer_name

_MATRIX, _KERNEL_RANKS = 2, (2, 3, 4)


@dataclass(frozen=True)
class Unreadable:
    """A tensor whose values cannot be looked at.

    Attributes:
        shape: As far as it is known.
        reason: Why.
    """

    shape: tuple[int, ...]
    reason: str


def layer_sparsity(
    *, name: str, tensor: str, op: str, nonzero: NDArray[np.bool_], axis: int, pattern: Pattern, note: str = ""
) -> LayerSparsity:
    """Check one stored weight.

    Args:
        name: Layer name.
        tensor: Where it is stored.
        op: Operator.
        nonzero: True where the stored value is not zero.
        axis: Axis of the groups.
        pattern: What to check.
        note: Kept, and extended when the axis cannot hold groups.
    """
    size = nonzero.shape[axis]
    divides = size > 0 and size % pattern.m == 0
    groups, violations = count_violations(nonzero, pattern, axis) if divides else (0, 0)
    if not divides:
        values = "1 value" if size == 1 else f"{size} values"
        note = f"{note}; " * bool(note) + f"{values} along the reduction axis, not a multiple of {pattern.m}"
    return LayerSparsity(
        name=name,
        tensor=tensor,
        op=op,
        shape=tuple(nonzero.shape),
        axis=axis,
        zeros=1 - int(np.count_nonzero(nonzero)) / max(nonzero.size, 1),
        groups=groups,
        violations=violations,
        note=note,
    )


def unproven(*, name: str, tensor: str, op: str, shape: tuple[int, ...], zeros: float, note: str) -> LayerSparsity:
    """A weight that is there but whose layout cannot be read or is outside the rule: it counts as not holding."""
    return LayerSparsity(
        name=name,
        tensor=tensor,
        op=op,
        shape=shape if min(shape, default=0) >= 0 else (),  # a damaged file may say anything
        axis=0,
        zeros=zeros,
        groups=0,
        violations=0,
        note=note,
    )


def inspect_tensors(
    tensors: Iterable[tuple[str, NDArray[np.bool_] | Unreadable]], file: Path, pattern: Pattern
) -> SparsityEvidence:
    """Read the layout of a checkpoint's matrices and convolution kernels, groups along axis 1.

    Args:
        tensors: Names as in a state dict, and where each is not zero; those ending in `weight` with 2 to 4 axes are
            looked at.
        file: Where they came from.
        pattern: What to check.
    """
    named = [(name, tensor) for name, tensor in tensors if name.endswith("weight")]
    rows = [row for name, tensor in named for row in _tensor_row(name, tensor, pattern)]
    return SparsityEvidence(pattern=str(pattern), file=file, layers=tuple(rows))


def _tensor_row(name: str, tensor: NDArray[np.bool_] | Unreadable, pattern: Pattern) -> list[LayerSparsity]:
    """None for a vector."""
    rank = len(tensor.shape)
    op = "linear" if rank == _MATRIX else "conv"
    if isinstance(tensor, Unreadable) and rank in (0, *_KERNEL_RANKS):  # of a lazy layer no shape is known
        note = f"unproven, because {tensor.reason}"
        return [unproven(name=layer_name(name), tensor=name, op=op, shape=tensor.shape, zeros=0.0, note=note)]
    if isinstance(tensor, Unreadable) or rank not in _KERNEL_RANKS:
        return []
    return [layer_sparsity(name=layer_name(name), tensor=name, op=op, nonzero=tensor, axis=1, pattern=pattern)]
