"""Convolutions and their transposes."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from snowsdeploy.models.onnx.call import Call
from snowsdeploy.models.onnx.rules.registry import tensor_rule
from snowsdeploy.models.onnx.rules.windows import window

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSES = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


@tensor_rule("Conv")
def _convolution(call: Call, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    moves = window(call, value, weight.shape[2:])
    padding: Sequence[int] = moves.before if moves.is_symmetric else [0] * moves.rank
    value = value if moves.is_symmetric else moves.padded(value)
    convolve = _CONVOLUTIONS[moves.rank - 1]
    return convolve(value, weight, bias, moves.strides, padding, moves.dilations, call.get("group", 1))


@tensor_rule("ConvTranspose")
def _transposed_convolution(call: Call, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Torch pads both sides alike; otherwise all is computed, and what the padding takes away is cut off."""
    moves = window(call, value, weight.shape[2:])
    extra = list(call.get("output_padding", [0] * moves.rank))
    before, after = _padding_of_output(call, value, moves.extents, moves.strides, extra)
    convolve = _TRANSPOSES[moves.rank - 1]
    group = call.get("group", 1)
    if before == after:
        return convolve(value, weight, bias, moves.strides, before, extra, group, moves.dilations)
    # torch wants an output padding below the stride; zeros at the end do the same.
    result = convolve(value, weight, None, moves.strides, 0, 0, group, moves.dilations)
    pads = [
        pad for low, high, add in reversed(list(zip(before, after, extra, strict=True))) for pad in (-low, add - high)
    ]
    result = F.pad(result, pads)
    return result if bias is None else result + bias.reshape(-1, *[1] * moves.rank)


def _padding_of_output(
    call: Call, value: Tensor, extents: Sequence[int], strides: Sequence[int], extra: Sequence[int]
) -> tuple[list[int], list[int]]:
    """What is cut off at the beginning and the end of each spatial axis."""
    rank = len(strides)
    mode = call.get("auto_pad", "NOTSET")
    shape = call.get("output_shape")
    if shape is None and not mode.startswith("SAME"):
        pads = call.get("pads", [0] * 2 * rank) if mode == "NOTSET" else [0] * 2 * rank
        return list(pads[:rank]), list(pads[rank:])
    totals = [extent + add - stride for extent, add, stride in zip(extents, extra, strides, strict=True)]
    if shape is not None:
        sizes = value.shape[2:]
        totals = [
            stride * (size - 1) + add + extent - wanted
            for stride, size, add, extent, wanted in zip(strides, sizes, extra, extents, shape[-rank:], strict=True)
        ]
    totals = [max(total, 0) for total in totals]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (small, large) if mode == "SAME_UPPER" else (large, small)
