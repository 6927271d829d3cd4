"""New weights into the user's own model, of which nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor

from snowsdeploy.errors import ExportError
from snowsdeploy.models.onnx.layouts import Array, arranged, inverse
from snowsdeploy.models.onnx.origin import Origin
from snowsdeploy.models.onnx.read import without_functions


def with_values(model: ModelProto, values: Mapping[str, Tensor], origins: Mapping[str, Origin]) -> ModelProto:
    """A copy of the model that holds new values; names, types, shapes, encodings and all other bytes are kept.

    Elements that are equal to those of the file keep the file's bits, in whatever precision it has them.

    Args:
        model: As it was read, with its external tensors.
        values: By key of the state dict; may be some of them.
        origins: Of every key.

    Raises:
        ExportError: The model lacks a tensor that a key came from, or holds it in another shape.
    """
    result = ModelProto()
    result.CopyFrom(model)
    wanted = {origins[key].initializer for key in values}
    slots = dict(_slots(result))
    if not wanted <= slots.keys() and result.functions:  # a constant inside of a function
        result = without_functions(result)
        slots = dict(_slots(result))
    for key, value in values.items():
        origin = origins[key]
        if origin.initializer not in slots:
            raise ExportError(
                "the ONNX model lacks a tensor that has a new value",
                seen=f"{key}: {origin.initializer}",
                allowed="a model with every initializer of the file that was imported",
                fix="give the model that was imported",
            )
        _fill(slots[origin.initializer], origin, value.detach().cpu().numpy(), key)
    return result


@dataclass(frozen=True)
class _Slot:
    """Where the model holds a tensor: as one, or as the numbers of a Constant node's attribute."""

    holder: TensorProto | AttributeProto

    @property
    def array(self) -> Array:
        """Its present value."""
        if isinstance(self.holder, TensorProto):
            return numpy_helper.to_array(self.holder)
        value = helper.get_attribute_value(self.holder)
        return np.array(value, np.float32 if isinstance(value, float) or self.holder.floats else np.int64)

    def fill(self, array: Array) -> None:
        """Put a value of the same type and shape there, in the same encoding."""
        holder = self.holder
        if isinstance(holder, AttributeProto):
            if holder.type == AttributeProto.FLOAT:
                holder.f = float(array)
            else:
                holder.floats[:] = array.tolist()
        elif holder.HasField("raw_data"):
            holder.raw_data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        elif holder.data_type == TensorProto.DOUBLE:
            holder.double_data[:] = array.reshape(-1).tolist()
        elif holder.data_type == TensorProto.FLOAT:
            holder.float_data[:] = array.reshape(-1).tolist()
        else:  # half precision, as the bits of 16 each
            holder.int32_data[:] = array.reshape(-1).view(np.uint16).tolist()


def _slots(model: ModelProto) -> Iterator[tuple[str, _Slot]]:
    """Tensors of the graph by the name that `Origin` has for them."""
    for tensor in model.graph.initializer:
        yield tensor.name, _Slot(tensor)
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute:
            attribute = node.attribute[0]
            yield node.output[0], _Slot(attribute.t if attribute.name == "value" else attribute)


def _fill(slot: _Slot, origin: Origin, value: Array, key: str) -> None:
    before = slot.array
    held = arranged(before, origin.steps)
    if held.shape != value.shape:
        raise ExportError(
            "a new value has another shape than the tensor of the ONNX model",
            seen=f"{key}: {value.shape}",
            allowed=str(held.shape),
            fix="give the model that was imported",
        )
    same = held.astype(value.dtype) == value
    if same.all():
        return
    stored = origin.stored(value).reshape(before.shape)
    slot.fill(np.where(arranged(same, inverse(origin.steps)), before, stored))
