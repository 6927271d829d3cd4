"""Reductions over axes."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from snowsdeploy.models.onnx import host
from snowsdeploy.models.onnx.call import Call, Result, Value
from snowsdeploy.models.onnx.layouts import Array
from snowsdeploy.models.onnx.rules.registry import RULES, rule, tensor_rule

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _product(value: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % value.dim() for axis in axes), reverse=True):
        value = value.prod(axis, keepdim=keep)
    return value


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceMean": lambda value, axes, keep: value.mean(axes, keepdim=keep),
    "ReduceSum": lambda value, axes, keep: value.sum(axes, keepdim=keep, dtype=value.dtype),
    "ReduceMax": lambda value, axes, keep: value.amax(axes, keepdim=keep),
    "ReduceMin": lambda value, axes, keep: value.amin(axes, keepdim=keep),
    "ReduceProd": _product,
    "ReduceL1": lambda value, axes, keep: value.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda value, axes, keep: torch.linalg.vector_norm(value, 2, axes, keepdim=keep),
    "ReduceSumSquare": lambda value, axes, keep: value.square().sum(axes, keepdim=keep),
    "ReduceLogSum": lambda value, axes, keep: value.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda value, axes, keep: torch.logsumexp(value, axes, keepdim=keep),
}
_ON_NUMBERS = {"ReduceProd": "Mul", "ReduceSum": "Add", "ReduceMax": "Max", "ReduceMin": "Min"}


def _register(operator: str, function: Reduction) -> None:
    def reduce(call: Call, value: Value, axes: Value = None) -> Result:
        wanted = call.axes(axes)
        keep = call.flag("keepdims", default=True)
        if isinstance(value, np.ndarray) and operator in _ON_NUMBERS and value.ndim == 1 and value.size:
            return _of_numbers(_ON_NUMBERS[operator], value, keep=keep)
        if not wanted and call.flag("noop_with_empty_axes"):
            return value
        tensor = call.tensor(value)
        return function(tensor, wanted or list(range(tensor.dim())), keep)

    RULES[operator] = reduce


def _of_numbers(operation: str, value: Array, *, keep: bool) -> Array:
    total = functools.reduce(host.BINARY[operation], value.tolist())
    return host.tidy([total], (1,) if keep else ())


for _name, _function in _REDUCTIONS.items():
    _register(_name, _function)


@tensor_rule("ArgMax")
def _largest(call: Call, value: Tensor) -> Tensor:
    return _position(call, value, torch.argmax)


@tensor_rule("ArgMin")
def _smallest(call: Call, value: Tensor) -> Tensor:
    return _position(call, value, torch.argmin)


def _position(call: Call, value: Tensor, function: Callable[..., Tensor]) -> Tensor:
    axis, keep = call.get("axis", 0), call.flag("keepdims", default=True)
    if not call.flag("select_last_index"):
        return function(value, axis, keepdim=keep)
    from_the_end = function(value.flip(axis), axis, keepdim=keep)
    return torch.rsub(from_the_end, value.shape[axis] - 1)


@rule("TopK")
def _top(call: Call, value: Value, count: Value = None) -> Result:
    """The number is an attribute before opset 10."""
    number = call.get("k") if count is None else call.number(count, "k")
    largest, ordered = call.flag("largest", default=True), call.flag("sorted", default=True)
    values, positions = call.tensor(value).topk(number, call.get("axis", -1), largest, ordered)
    return values, positions


@rule("CumSum")
def _running_sum(call: Call, value: Value, axis: Value) -> Result:
    tensor, along = call.tensor(value), int(call.number(axis, "axis"))
    tensor = tensor.flip(along) if call.flag("reverse") else tensor
    total = tensor.cumsum(along, dtype=tensor.dtype)
    total = total - tensor if call.flag("exclusive") else total
    return total.flip(along) if call.flag("reverse") else total
