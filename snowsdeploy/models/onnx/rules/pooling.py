"""Pooling over windows and over whole images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from snowsdeploy.models.onnx.call import Call
from snowsdeploy.models.onnx.rules.registry import tensor_rule
from snowsdeploy.models.onnx.rules.windows import Window, window

_MAXIMA = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGES = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


@tensor_rule("MaxPool")
def _max_pool(call: Call, value: Tensor) -> Tensor:
    moves = window(call, value, call.get("kernel_shape"))
    ceil = call.flag("ceil_mode")
    own = moves.is_symmetric and all(2 * pad <= size for pad, size in zip(moves.before, moves.kernel, strict=True))
    padding = moves.before if own else (0,) * moves.rank
    given = value if own else moves.padded(value, -math.inf)
    pooled: Tensor = _MAXIMA[moves.rank - 1](given, moves.kernel, moves.strides, padding, moves.dilations, ceil)
    return moves.trimmed(pooled, value) if ceil and not own else pooled


@tensor_rule("AveragePool")
def _average_pool(call: Call, value: Tensor) -> Tensor:
    call.only("dilations", [1] * len(call.get("kernel_shape")))
    moves = window(call, value, call.get("kernel_shape"))
    ceil, with_pads = call.flag("ceil_mode"), call.flag("count_include_pad")
    own = moves.is_symmetric and all(2 * pad <= size for pad, size in zip(moves.before, moves.kernel, strict=True))
    if own:
        pool = _AVERAGES[moves.rank - 1]
        return pool(value, moves.kernel, moves.strides, moves.before, ceil, with_pads)
    averages = _averages(moves, value, ceil=ceil)
    return averages if with_pads else averages / _averages(moves, torch.ones_like(value[:1, :1]), ceil=ceil)


def _averages(moves: Window, value: Tensor, *, ceil: bool) -> Tensor:
    """Averages with the padding counted as zeros."""
    pooled: Tensor = _AVERAGES[moves.rank - 1](moves.padded(value), moves.kernel, moves.strides, 0, ceil)
    return moves.trimmed(pooled, value) if ceil else pooled


@tensor_rule("GlobalAveragePool")
def _global_average_pool(call: Call, value: Tensor) -> Tensor:
    return value.mean(tuple(range(2, value.dim())), keepdim=True)


@tensor_rule("GlobalMaxPool")
def _global_max_pool(call: Call, value: Tensor) -> Tensor:
    return value.amax(tuple(range(2, value.dim())), keepdim=True)
