"""Padding by a constant, the edge, a reflection or the other end."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from snowsdeploy.models.onnx.call import Call
from snowsdeploy.models.onnx.host import Number

_TORCH_MODES = {"edge": "replicate", "reflect": "reflect"}


def padded(call: Call, tensor: Tensor, amounts: Mapping[int, tuple[Number, Number]], mode: str, fill: Number) -> Tensor:
    """The tensor with elements before and after those of each axis.

    Args:
        call: The node.
        tensor: Any shape.
        amounts: By axis; a negative amount takes elements away.
        mode: As ONNX names it.
        fill: For the mode `constant`.

    Raises:
        SourceError: The mode is not supported.
    """
    by_axis = {
        axis: pair for axis, pair in amounts.items() if not all(isinstance(size, int) and size == 0 for size in pair)
    }
    if not by_axis:
        return tensor
    flat = [size for axis in reversed(range(min(by_axis), tensor.dim())) for size in by_axis.get(axis, (0, 0))]
    if mode == "constant":
        return F.pad(tensor, flat, value=fill)
    if mode not in ("edge", "reflect", "wrap"):
        raise call.refused(
            "its attribute mode is not supported", seen=f"mode={mode}", allowed="constant, edge, reflect"
        )
    whole = all(isinstance(size, int) and size >= 0 for size in flat)
    if mode in _TORCH_MODES and whole and min(by_axis) >= 2 and 3 <= tensor.dim() <= 5:
        spatial = [*flat, *[0] * (2 * (tensor.dim() - 2) - len(flat))]
        return F.pad(tensor, spatial, mode=_TORCH_MODES[mode])
    for axis, (before, after) in by_axis.items():
        tensor = tensor.index_select(axis, _positions(tensor, axis, before, after, mode))
    return tensor


def _positions(tensor: Tensor, axis: int, before: Number, after: Number, mode: str) -> Tensor:
    """For each element of the result, the one that it repeats."""
    size = tensor.shape[axis]
    positions = torch.arange(-before, size + after, device=tensor.device)
    if mode == "edge":
        return positions.clamp(0, size - 1)
    if mode == "wrap":
        return positions.remainder(size)
    return (size - 1) - ((size - 1) - positions.abs()).abs()
