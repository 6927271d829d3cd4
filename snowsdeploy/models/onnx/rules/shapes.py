"""Shapes, and the same elements in another shape, order, type or number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from snowsdeploy.models.onnx import host
from snowsdeploy.models.onnx.call import Call, Held, Result, Value
from snowsdeploy.models.onnx.host import Number
from snowsdeploy.models.onnx.layouts import Array
from snowsdeploy.models.onnx.rules.padding import padded
from snowsdeploy.models.onnx.rules.registry import rule, tensor_rule

# Reals of any precision are computed in single precision.
TORCH_TYPES = {
    TensorProto.FLOAT: torch.float32, TensorProto.FLOAT16: torch.float32, TensorProto.BFLOAT16: torch.float32,
    TensorProto.DOUBLE: torch.float32, TensorProto.BOOL: torch.bool, TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16, TensorProto.INT32: torch.int32, TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
}  # fmt: skip
_BEYOND = 1 << 30  # an end of a slice that means "to the last element"


def sizes(call: Call, value: Value) -> list[Number]:
    """The shape of any value."""
    return list(value.shape if isinstance(value, Tensor | np.ndarray) else call.tensor(value).shape)


@rule("Shape")
def _shape(call: Call, value: Value) -> Result:
    found = sizes(call, value)
    return host.tidy(found[call.get("start", 0) : call.get("end", len(found))])


@rule("Size")
def _size(call: Call, value: Value) -> Result:
    return host.tidy([math.prod(sizes(call, value))], ())


@rule("Identity")
def _same(call: Call, value: Value) -> Result:
    return value


@rule("Dropout")
def _dropout(call: Call, value: Value, ratio: Value = None, training: Value = None) -> Result:
    if training is not None and call.number(training, "training_mode"):
        raise call.refused("it is in training mode", seen="training_mode=1", allowed="training_mode=0")
    return value


@rule("Cast")
def _cast(call: Call, value: Value) -> Result:
    kind = TORCH_TYPES.get(call.get("to"))
    if kind is None:
        raise call.refused(
            "its type is not supported",
            seen=TensorProto.DataType.Name(call.get("to")),
            allowed=", ".join(map(TensorProto.DataType.Name, TORCH_TYPES)),
        )
    return _to_type(call, value, kind)


@rule("CastLike")
def _cast_like(call: Call, value: Value, like: Value) -> Result:
    return _to_type(call, value, call.tensor(like).dtype)


def _to_type(call: Call, value: Value, kind: torch.dtype) -> Result:
    if not isinstance(value, np.ndarray):
        return call.tensor(value).to(kind)
    if value.dtype != object:
        return value.astype(str(kind).removeprefix("torch."))
    if kind.is_floating_point:  # a size stays an integer, which means the same number
        return value
    return host.mapped(bool if kind == torch.bool else host.whole, value)


@rule("Reshape")
def _reshape(call: Call, value: Value, shape: Value) -> Result:
    wanted = call.numbers(shape, "shape")
    if isinstance(value, np.ndarray) and not any(map(host.is_symbol, wanted)):
        return value.reshape(wanted)
    tensor = call.tensor(value)
    if not call.flag("allowzero"):
        wanted = [tensor.shape[at] if isinstance(size, int) and size == 0 else size for at, size in enumerate(wanted)]
    return tensor.reshape(wanted)


@tensor_rule("Flatten")
def _flatten(call: Call, value: Tensor) -> Tensor:
    axis = call.get("axis", 1)
    axis = axis + value.dim() if axis < 0 else axis
    if axis == 1 and value.dim() > 1:
        return value.flatten(1)
    return value.reshape(math.prod(value.shape[:axis]), math.prod(value.shape[axis:]))


@rule("Transpose")
def _transpose(call: Call, value: Value) -> Result:
    if isinstance(value, np.ndarray):
        return value.transpose(call.get("perm"))
    tensor = call.tensor(value)
    return tensor.permute(call.get("perm") or list(reversed(range(tensor.dim()))))


@rule("Squeeze")
def _squeeze(call: Call, value: Value, axes: Value = None) -> Result:
    wanted = call.axes(axes)
    if isinstance(value, np.ndarray):
        return np.squeeze(value, tuple(wanted) or None)
    tensor = call.tensor(value)
    return tensor.squeeze(wanted) if wanted else tensor.squeeze()


@rule("Unsqueeze")
def _unsqueeze(call: Call, value: Value, axes: Value = None) -> Result:
    wanted = call.axes(axes)
    if isinstance(value, np.ndarray):
        return np.expand_dims(value, tuple(wanted))
    tensor = call.tensor(value)
    rank = tensor.dim() + len(wanted)
    for axis in sorted(axis % rank for axis in wanted):
        tensor = tensor.unsqueeze(axis)
    return tensor


@rule("Concat")
def _concat(call: Call, *values: Value) -> Result:
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    if len(arrays) == len(values):
        return host.retyped(np.concatenate(arrays, call.get("axis")))
    return torch.cat([call.tensor(value) for value in values], call.get("axis"))


@rule("Split")
def _split(call: Call, value: Value, parts: Value = None) -> Result:
    axis = call.get("axis", 0)
    given = call.get("split") if parts is None else call.numbers(parts, "split")
    if isinstance(value, np.ndarray):
        where = [sum(given[: at + 1]) for at in range(len(given) - 1)] if given else len(call.outputs)
        return tuple(map(host.retyped, np.array_split(value, where, axis)))
    tensor = call.tensor(value)
    if given:
        return tuple(tensor.split([int(size) for size in given], axis))
    count = call.get("num_outputs") or len(call.outputs)
    return tuple(tensor.split(-(-tensor.shape[axis] // count), axis))


@rule("Slice")
def _slice(call: Call, value: Value, *bounds: Value) -> Result:
    """Starts, ends, axes and steps are inputs from opset 10 on."""
    starts, ends, axes, steps = (*bounds, None, None, None, None)[:4]
    first = call.get("starts") if starts is None else call.numbers(starts, "starts")
    last = call.get("ends") if ends is None else call.numbers(ends, "ends")
    along = call.axes(axes) or list(range(len(first)))
    every = [1] * len(first) if steps is None else call.numbers(steps, "steps")
    parts = [_Part(*row) for row in zip(along, first, last, every, strict=True)]
    if isinstance(value, np.ndarray):
        return _slice_of_numbers(value, parts)
    tensor = call.tensor(value)
    for part in parts:
        tensor = _slice_of_axis(call, tensor, part)
    return tensor


@dataclass(frozen=True)
class _Part:
    """What is taken of one axis."""

    axis: int
    start: Number
    end: Number
    step: int

    def of(self, size: int) -> slice:
        """As Python writes it; backwards, a start before the first element is that one, such an end is None."""
        if self.step > 0:
            return slice(self.start, self.end, self.step)
        return slice(max(self.start, -size), None if self.end < -size else self.end, self.step)

    @property
    def is_reversal(self) -> bool:
        """Whether it is the whole axis backwards, whatever its size."""
        numbers = self.step == -1 and isinstance(self.start, int) and isinstance(self.end, int)
        return numbers and self.end < -_BEYOND and (self.start == -1 or self.start > _BEYOND)


def _slice_of_numbers(value: Array, parts: Sequence[_Part]) -> Array:
    slices = [slice(None)] * value.ndim
    for part in parts:
        slices[part.axis] = part.of(value.shape[part.axis])
    return host.retyped(value[tuple(slices)])


def _slice_of_axis(call: Call, tensor: Tensor, part: _Part) -> Tensor:
    axis = part.axis % tensor.dim()
    size = tensor.shape[axis]
    if part.step > 0:
        end = None if isinstance(part.end, int) and part.end > _BEYOND else part.end
        return tensor[(*[slice(None)] * axis, slice(part.start, end, part.step))]
    if part.is_reversal:
        return tensor.flip(axis)
    if any(map(host.is_symbol, (part.start, part.end, size))):
        raise call.refused(
            "it steps backwards over a part of an axis that may vary",
            seen=f"axis {axis}",
            allowed="the whole axis, or one of a fixed size",
        )
    positions = range(size)[part.of(size)]
    return tensor.index_select(axis, torch.tensor(list(positions), dtype=torch.int64, device=tensor.device))


@rule("Expand")
def _expand(call: Call, value: Value, shape: Value) -> Result:
    tensor, wanted = call.tensor(value), call.numbers(shape, "shape")
    return tensor.expand(broadcast_shape(list(tensor.shape), wanted))


def broadcast_shape(one: list[Number], other: list[Number]) -> list[Number]:
    """The shape that both broadcast to; of two sizes the one that is not known to be 1 counts."""
    rank = max(len(one), len(other))
    one, other = ([1] * (rank - len(sizes)) + sizes for sizes in (one, other))
    return [left if isinstance(right, int) and right == 1 else right for left, right in zip(one, other, strict=True)]


@rule("Tile")
def _tile(call: Call, value: Value, repeats: Value) -> Result:
    return call.tensor(value).repeat(call.numbers(repeats, "repeats"))


@rule("Pad")
def _pad(call: Call, value: Value, pads: Value = None, fill: Value = None, axes: Value = None) -> Result:
    tensor = call.tensor(value)
    amounts = call.get("pads") if pads is None else call.numbers(pads, "pads")
    along = [axis % tensor.dim() for axis in call.axes(axes)] or list(range(len(amounts) // 2))
    number = call.get("value", 0.0) if fill is None else call.number(fill, "constant_value")
    half = len(amounts) // 2
    by_axis = dict(zip(along, zip(amounts[:half], amounts[half:], strict=True), strict=True))
    return padded(call, tensor, by_axis, call.get("mode", "constant"), number)


@rule("ConstantOfShape")
def _constant_of_shape(call: Call, shape: Value) -> Result:
    wanted = call.numbers(shape, "shape")
    fill = call.get("value", np.zeros(1, np.float32)).reshape(-1)
    symbolic = any(map(host.is_symbol, wanted))
    if fill.dtype.kind != "f" and not symbolic and len(wanted) <= 1 and math.prod(wanted) <= host.SMALL:
        return np.full(wanted, fill[0])
    kind = torch.float32 if fill.dtype.kind not in "iub" else getattr(torch, fill.dtype.name)
    return torch.full(wanted, fill[0].item(), dtype=kind, device=call.device)


@rule("Range")
def _range(call: Call, start: Value, limit: Value, delta: Value) -> Result:
    ends = [call.number(start, "start"), call.number(limit, "limit"), call.number(delta, "delta")]
    kind = torch.float32 if any(isinstance(end, float) for end in ends) else torch.int64
    return torch.arange(*ends, dtype=kind, device=call.device)


@rule("Where")
def _where(call: Call, condition: Value, left: Value, right: Value) -> Result:
    if isinstance(condition, np.ndarray) and isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return host.mapped(lambda test, one, other: one if test else other, condition, left, right)
    test = call.tensor(condition)
    one, other = call.operand(left, right), call.operand(right, left)
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        one, other = call.tensor(left), call.tensor(right)
    return torch.where(test, one, other)


@rule("Trilu")
def _triangle(call: Call, value: Value, offset: Value = None) -> Result:
    tensor, number = call.tensor(value), 0 if offset is None else int(call.number(offset, "k"))
    return (torch.triu if call.flag("upper", default=True) else torch.tril)(tensor, number)


def known_nonnegative(value: Value) -> bool:
    """Whether a constant is known to hold no negative index."""
    return isinstance(value, Held) and value.nonnegative
