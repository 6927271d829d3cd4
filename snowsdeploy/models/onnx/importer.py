"""An ONNX file to a module, with the origin of every parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx.inliner
import torch
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from torch import Tensor

from snowsdeploy.errors import SourceError
from snowsdeploy.models.onnx.call import Held
from snowsdeploy.models.onnx.constants import Constants, attributes_of, constants_of
from snowsdeploy.models.onnx.layouts import Array, arranged
from snowsdeploy.models.onnx.module import Graph, Instruction, OnnxModule
from snowsdeploy.models.onnx.operators import check_operators, node_name
from snowsdeploy.models.onnx.origin import Origin
from snowsdeploy.models.onnx.plan import Place, Use, placed, uses_of
from snowsdeploy.models.onnx.read import digest, main_opset, read_onnx

Size = int | str | None
_OTHER_PRECISIONS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_RESERVED = frozenset({"graph", "computed_in_float32"})


@dataclass(frozen=True)
class OnnxInput:
    """An input of the file.

    Attributes:
        name: Its name.
        shape: An integer for a fixed size, a name for one that varies, None for one of which nothing is said.
        dtype: NumPy name of the type in the file.
    """

    name: str
    shape: tuple[Size, ...]
    dtype: str


@dataclass(frozen=True)
class ImportedOnnx:
    """A file as a module.

    Attributes:
        module: In evaluation mode.
        origins: For each key of the module's state dict, the tensor of the file.
        inputs: In the order of the module's arguments.
        outputs: Names, in the order of the module's results.
        opset: Version of the file's operators.
        producer: What wrote the file, as it says; may be empty.
        sha256: Of the file and of the files that hold its tensors.
    """

    module: OnnxModule
    origins: dict[str, Origin]
    inputs: tuple[OnnxInput, ...]
    outputs: tuple[str, ...]
    opset: int
    producer: str
    sha256: str


def import_onnx(path: Path) -> ImportedOnnx:
    """Turn a file into a module.

    Raises:
        SourceError: The file cannot be read, or has operators or tensors that cannot be imported.
    """
    model = without_functions(read_onnx(path))
    check_operators(model)
    inputs = _inputs(model)
    constants = constants_of(model.graph, main_opset(model))
    outputs = tuple(output.name for output in model.graph.output)
    uses = uses_of(constants, outputs)
    places = placed(uses, _RESERVED)
    graph = _graph(model, constants, uses, places, [info.name for info in inputs], outputs)
    values = {place.path: _tensor(arranged(place.source.array, place.steps)) for place in places.values()}
    parameters = {place.path for place in places.values() if place.is_parameter}
    module = OnnxModule(
        graph,
        {path: value for path, value in values.items() if path in parameters},
        {path: value for path, value in values.items() if path not in parameters},
    )
    return ImportedOnnx(
        module,
        {place.path: _origin(place) for place in places.values()},
        inputs,
        outputs,
        graph.opset,
        f"{model.producer_name} {model.producer_version}".strip(),
        digest(path),
    )


def without_functions(model: ModelProto) -> ModelProto:
    """The model with the bodies of its local functions in place of their calls; itself where it has none."""
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _inputs(model: ModelProto) -> tuple[OnnxInput, ...]:
    """The graph's inputs without those that an initializer gives a value, as before IR version 4."""
    initialized = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_input(info) for info in model.graph.input if info.name not in initialized)
    if not inputs:
        raise SourceError("the ONNX file has no inputs", seen="no inputs", fix="export the model with its image input")
    return inputs


def _input(info: ValueInfoProto) -> OnnxInput:
    kind = info.type.tensor_type
    if not info.type.HasField("tensor_type") or kind.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        raise SourceError(
            "an input of the ONNX file is no tensor of numbers",
            seen=info.name,
            fix="export the model with tensor inputs",
        )
    sizes: Iterator[Size] = (
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or None for d in kind.shape.dim
    )
    return OnnxInput(info.name, tuple(sizes), helper.tensor_dtype_to_np_dtype(kind.elem_type).name)


def _origin(place: Place) -> Origin:
    source = place.source
    return Origin(source.name, source.array.dtype.name, place.steps, source.constant_node)


def _tensor(array: Array) -> Tensor:
    """A copy; reals in single precision."""
    is_float = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return torch.from_numpy(np.array(array.astype(np.float32) if is_float else array, order="C"))


def _graph(
    model: ModelProto,
    constants: Constants,
    uses: Sequence[Use],
    places: Mapping[str, Place],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> Graph:
    by_input = {(id(use.node), use.at): use for use in uses if use.node is not None}
    of_outputs = iter([use for use in uses if use.node is None])
    results = [_constant(next(of_outputs), places) if name in constants.values else name for name in outputs]
    last_readers = {name: id(node) for node in constants.nodes for name in node.input}
    needed = set(last_readers) | set(outputs)

    def instruction(node: NodeProto) -> Instruction:
        values: list[str | Array | Held | None] = []
        for at, name in enumerate(node.input):
            use = by_input.get((id(node), at))
            values.append(_constant(use, places) if use else name or None)
        names = {name for name in values if isinstance(name, str) and name not in outputs}
        last = tuple(sorted(name for name in names if last_readers[name] == id(node)))
        read = tuple(name if name in needed else "" for name in node.output)
        return Instruction(node.op_type, node_name(node), tuple(values), read, attributes_of(node), last)

    instructions = tuple(instruction(node) for node in constants.nodes)
    return Graph(tuple(inputs), tuple(results), instructions, main_opset(model), _has_other_precision(model, constants))


def _constant(use: Use, places: Mapping[str, Place]) -> Array | Held:
    """What a node is given for a constant: a number, or where the module holds the tensor."""
    constant = use.constant
    place = places.get(constant.source.name)
    if use.as_number or place is None:
        return constant.numbers
    array = constant.source.array
    is_index = array.dtype.kind in "iu" and array.size > 0 and bool(array.min() >= 0)
    return Held(place.path, place.view(constant), len(constant.shape), is_index)


def _has_other_precision(model: ModelProto, constants: Constants) -> bool:
    """Whether weights, inputs or casts are of half or double precision."""
    types = [info.type.tensor_type.elem_type for info in (*model.graph.input, *model.graph.output)]
    types += [attribute.i for node in constants.nodes if node.op_type == "Cast" for attribute in node.attribute]
    types += [tensor.data_type for tensor in model.graph.initializer]
    return any(kind in _OTHER_PRECISIONS for kind in types)
