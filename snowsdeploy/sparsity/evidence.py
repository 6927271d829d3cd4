"""Layout facts of one tensor, and of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

from torch import Tensor

from snowsdeploy.artifacts import LayerSparsity, SparsityEvidence
from snowsdeploy.sparsity.pattern import Pattern, count_violations

_MATRIX, _KERNEL_RANKS = 2, (2, 3, 4)


def layer_sparsity(
    *, name: str, tensor: str, op: str, nonzero: Tensor, axis: int, pattern: Pattern, note: str = ""
) -> LayerSparsity:
    """Check one stored weight.

    Args:
        name: Layer name.
        tensor: Where it is stored.
        op: Operator.
        nonzero: Boolean tensor, true where the stored value is not zero.
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
        zeros=1 - int(nonzero.sum()) / max(nonzero.numel(), 1),
        groups=groups,
        violations=violations,
        layout_valid=divides and violations == 0,
        note=note,
    )


def unproven(*, name: str, tensor: str, op: str, shape: tuple[int, ...], zeros: float, note: str) -> LayerSparsity:
    """A weight that is there but whose layout cannot be read or is outside the rule: it counts as not holding."""
    return LayerSparsity(
        name=name,
        tensor=tensor,
        op=op,
        shape=shape,
        axis=0,
        zeros=zeros,
        groups=0,
        violations=0,
        layout_valid=False,
        note=note,
    )


def summarise(file: Path, pattern: Pattern, layers: Sequence[LayerSparsity]) -> SparsityEvidence:
    """Add up the weights, each stored tensor once; it is covered when every use of it is."""
    once = {row.tensor: row for row in layers}
    uncovered = {row.tensor for row in layers if not row.layout_valid}
    return SparsityEvidence(
        pattern=str(pattern),
        file=file,
        layers=tuple(layers),
        weights_covered=sum(prod(row.shape) for tensor, row in once.items() if tensor not in uncovered),
        weights_total=sum(prod(row.shape) for row in once.values()),
    )


def inspect_state_dict(tensors: Mapping[str, Tensor], file: Path, pattern: Pattern) -> SparsityEvidence:
    """Read the layout of a checkpoint's matrices and convolution kernels, groups along axis 1.

    Args:
        tensors: State dict; names ending in `.weight` with 2 to 4 axes are looked at.
        file: Where they came from.
        pattern: What to check.
    """
    rows = [
        layer_sparsity(
            name=name.removesuffix(".weight"),
            tensor=name,
            op="linear" if value.dim() == _MATRIX else "conv",
            nonzero=value != 0,
            axis=1,
            pattern=pattern,
        )
        for name, value in tensors.items()
        if name.endswith("weight") and value.dim() in _KERNEL_RANKS
    ]
    return summarise(file, pattern, rows)
