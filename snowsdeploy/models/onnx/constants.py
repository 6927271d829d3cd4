"""Constants of a file: which become parameters, which buffers, and which stay numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from snowsdeploy.errors import SourceError, first_line
from snowsdeploy.models.onnx.host import SMALL
from snowsdeploy.models.onnx.layouts import (
    TRANSPOSED,
    Array,
    Permute,
    Reshape,
    Step,
    Steps,
    arranged,
    joined,
    resolved_shape,
    shape_after,
)
from snowsdeploy.models.onnx.operators import node_name

FLOAT_TYPES = frozenset({"float16", "bfloat16", "float32", "float64"})
_FLOAT_CODES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
_CHAIN = frozenset({"Identity", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Cast"})
_TYPES = FLOAT_TYPES | {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"}


@dataclass(frozen=True)
class Source:
    """A tensor of the file.

    Attributes:
        name: Of the initializer, or of the output of its Constant node.
        array: In the file's own type.
        constant_node: Whether a Constant node holds it.
    """

    name: str
    array: Array
    constant_node: bool

    @property
    def is_float(self) -> bool:
        """Whether it holds real numbers."""
        return self.array.dtype.name in FLOAT_TYPES


@dataclass(frozen=True)
class Constant:
    """What a name of the graph stands for: a tensor of the file, laid out anew."""

    source: Source
    steps: Steps = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the value in the graph."""
        return shape_after(self.source.array.shape, self.steps)

    @property
    def numbers(self) -> Array:
        """The value in the graph; reals are in single precision, or in the double precision of the file."""
        array = arranged(self.source.array, self.steps)
        return array.astype(np.float32) if self.source.is_float else array


@dataclass
class Constants:
    """The constants of a graph by name, and the nodes that are left to compute."""

    values: dict[str, Constant] = field(default_factory=dict)
    nodes: list[NodeProto] = field(default_factory=list)


def constants_of(graph: GraphProto, opset: int) -> Constants:
    """Read initializers and Constant nodes, and fold the nodes that only lay a constant of reals out anew.

    Raises:
        SourceError: A tensor has a type or an encoding that is not supported.
    """
    result = Constants()
    for tensor in graph.initializer:
        result.values[tensor.name] = Constant(Source(tensor.name, _array(tensor, tensor.name), constant_node=False))
    for node in graph.node:
        if node.op_type == "Constant":
            name = node.output[0]
            result.values[name] = Constant(Source(name, _constant(node), constant_node=True))
        elif (folded := _folded(node, result.values, opset)) is not None:
            result.values[node.output[0]] = folded
        else:
            result.nodes.append(node)
    return result


def attributes_of(node: NodeProto) -> dict[str, object]:
    """Attributes by name, with texts as str and tensors as arrays."""
    values: dict[str, object] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, TensorProto):
            value = _array(value, node_name(node))
        elif isinstance(value, list | tuple) and value and isinstance(value[0], bytes):
            value = [text.decode() for text in value]
        values[attribute.name] = value
    return values


def product_steps(node: NodeProto, at: int, rank: int) -> Steps | None:
    """What turns the constant at an input into the weight of torch's layer; None where the input is no weight.

    Args:
        node: Any node.
        at: Position among its inputs.
        rank: Number of axes of the constant.
    """
    if at != 1:
        return None
    if node.op_type in ("Conv", "ConvTranspose"):
        return ()
    if node.op_type == "Gemm":
        return () if attributes_of(node).get("transB") else TRANSPOSED
    return TRANSPOSED if node.op_type == "MatMul" and rank == 2 else None


def _folded(node: NodeProto, values: Mapping[str, Constant], opset: int) -> Constant | None:
    """The constant that a node makes of one, where it only lays it out anew."""
    first = values.get(node.input[0]) if node.input else None
    if first is None or node.op_type not in _CHAIN or not all(name in values for name in node.input if name):
        return None
    if node.op_type == "Identity":
        return first
    attributes = attributes_of(node)
    if not first.source.is_float or (node.op_type == "Cast" and attributes["to"] not in _FLOAT_CODES):
        return None
    if node.op_type == "Cast":
        return first
    second = values[node.input[1]].numbers.reshape(-1).tolist() if len(node.input) > 1 and node.input[1] else None
    step = _step(node.op_type, first.shape, attributes, second, opset)
    return None if step is None else Constant(first.source, joined((*first.steps, step)))


def _step(
    op: str, shape: tuple[int, ...], attributes: Mapping[str, object], second: list[int] | None, opset: int
) -> Step | None:
    rank = len(shape)
    if op == "Transpose":
        return Permute(tuple(_integers(attributes.get("perm", list(reversed(range(rank)))))))
    if op == "Reshape":
        return Reshape(shape, resolved_shape(shape, second or [], zero_copies=not attributes.get("allowzero")))
    if op == "Flatten":
        at = _integers([attributes.get("axis", 1)])[0]
        rows = int(np.prod(shape[:at]))
        return Reshape(shape, (rows, int(np.prod(shape)) // max(rows, 1)))
    given = attributes.get("axes") if opset < 13 else second
    if op == "Squeeze":
        axes = {axis % rank for axis in _integers(given)} if given else {at for at in range(rank) if shape[at] == 1}
        return Reshape(shape, tuple(size for at, size in enumerate(shape) if at not in axes))
    wanted = _integers(given or [])
    axes = {axis % (rank + len(wanted)) for axis in wanted}
    sizes = iter(shape)
    return Reshape(shape, tuple(1 if at in axes else next(sizes) for at in range(rank + len(axes))))


def _integers(values: object) -> list[int]:
    return [int(value) for value in values] if isinstance(values, Iterable) else []


def is_small(constant: Constant) -> bool:
    """Whether it may be sizes: few numbers in one row."""
    return len(constant.shape) <= 1 and constant.source.array.size <= SMALL


def _constant(node: NodeProto) -> Array:
    attribute = node.attribute[0]
    value = attributes_of(node)[attribute.name]
    if attribute.name == "value" and isinstance(value, np.ndarray):
        return value
    if attribute.name in ("value_int", "value_ints", "value_float", "value_floats"):
        return np.array(value, np.int64 if "int" in attribute.name else np.float32)
    raise SourceError(
        "a constant of the ONNX file cannot be imported",
        seen=f"{node_name(node)}: {attribute.name}",
        allowed="dense tensors of numbers",
        fix="export the model without it",
    )


def _array(tensor: TensorProto, name: str) -> Array:
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise SourceError(
            "a tensor of the ONNX file is damaged",
            seen=f"{name}: {first_line(error)}",
            allowed="as many values as its shape and type say",
            fix="copy or download the file again",
        ) from error
    if array.dtype.name not in _TYPES:
        raise SourceError(
            "a tensor of the ONNX file has a type that cannot be imported",
            seen=f"{name}: {TensorProto.DataType.Name(tensor.data_type)}",
            allowed=", ".join(sorted(_TYPES)),
            fix="pass the FP32 model that the file was made from",
        )
    return array
