"""An ONNX file to a module, with the origin of every parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from onnx import ModelProto, TensorProto, ValueInfoProto, helper
from torch import Tensor, fx, nn

from snowsdeploy.errors import SourceError, cause
from snowsdeploy.files import reading
from snowsdeploy.layout.onnx_file import onnx_digest
from snowsdeploy.layout.onnx_products import model_uses, product_name
from snowsdeploy.models.onnx.assemble import Assembly
from snowsdeploy.models.onnx.constants import constants_of
from snowsdeploy.models.onnx.file import OnnxFile
from snowsdeploy.models.onnx.layouts import Array, arranged
from snowsdeploy.models.onnx.module import OnnxModule
from snowsdeploy.models.onnx.operators import check_operators
from snowsdeploy.models.onnx.origin import Origin
from snowsdeploy.models.onnx.plan import Place, placed, uses_of
from snowsdeploy.models.onnx.read import main_opset, read_onnx, without_functions

Size = int | str | None
# Names of OnnxModule's own, and of the module that torch.export makes of it.
_RESERVED = frozenset({"graph", "computed_in_float32", *dir(fx.GraphModule(nn.Module(), fx.Graph()))})


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

    def __str__(self) -> str:
        """`images [batch, 3, height, width] float32`."""
        return f"{self.name} [{', '.join(str(size or '?') for size in self.shape)}] {self.dtype}"


@dataclass(frozen=True)
class ImportedOnnx:
    """A file as a module.

    Attributes:
        module: In evaluation mode.
        file: What it was made of.
        inputs: In the order of the module's arguments.
        outputs: Names, in the order of the module's results.
        opset: Version of the file's operators.
        producer: What wrote the file, as it says; may be empty.
        sha256: Of the file and of the files that hold its tensors.
    """

    module: OnnxModule
    file: OnnxFile
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
    file = read_onnx(path)
    with reading(lambda error: _not_imported(path, error)):
        return _imported(file, path)


def _imported(file: ModelProto, path: Path) -> ImportedOnnx:
    model = without_functions(file)
    check_operators(model)
    inputs = _inputs(model)
    constants = constants_of(model.graph, main_opset(model))
    outputs = tuple(output.name for output in model.graph.output)
    uses = uses_of(constants, outputs)
    places = placed(uses, _RESERVED)
    graph = Assembly(model, constants, uses, places, [info.name for info in inputs]).graph()
    values = {place.path: _tensor(arranged(place.source.array, place.steps)) for place in places.values()}
    parameters = {place.path for place in places.values() if place.is_parameter}
    module = OnnxModule(
        graph,
        {path: value for path, value in values.items() if path in parameters},
        {path: value for path, value in values.items() if path not in parameters},
    )
    origins = {place.path: _origin(place) for place in places.values()}
    return ImportedOnnx(
        module,
        OnnxFile(file, origins, _layer_names(model, origins)),
        inputs,
        outputs,
        graph.opset,
        f"{model.producer_name} {model.producer_version}".strip(),
        onnx_digest(path),
    )


def _not_imported(path: Path, error: Exception) -> SourceError:
    """For nodes that lack an input or an attribute, and shapes that are not those of their values."""
    return SourceError(
        "the ONNX file cannot be imported: it does not keep to the format",
        seen=f"{path}: {cause(error)}",
        allowed="a file that onnx.checker.check_model accepts",
        fix="see what onnx.checker.check_model says of it, and export it again",
    )


def _inputs(model: ModelProto) -> tuple[OnnxInput, ...]:
    """The graph's inputs without those that an initializer gives a value, as before IR version 4."""
    initialized = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_input(info) for info in model.graph.input if info.name not in initialized)
    if not inputs:
        raise SourceError(
            "the ONNX file has no inputs",
            seen=f"{len(model.graph.input)} inputs, each with an initializer as its value",
            allowed="at least one input that is fed",
            fix="export the model with its image as an input",
        )
    return inputs


def _kind(info: ValueInfoProto) -> str:
    kind = info.type.WhichOneof("value") or "no type"
    return TensorProto.DataType.Name(info.type.tensor_type.elem_type) if kind == "tensor_type" else kind


def _input(info: ValueInfoProto) -> OnnxInput:
    kind = info.type.tensor_type
    if not info.type.HasField("tensor_type") or kind.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        raise SourceError(
            "an input of the ONNX file is no tensor of numbers",
            seen=f"{info.name}: {_kind(info)}",
            allowed="tensors of numbers or truth values",
            fix="export the model with tensor inputs",
        )
    sizes: Iterator[Size] = (
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or None for d in kind.shape.dim
    )
    return OnnxInput(info.name, tuple(sizes), helper.tensor_dtype_to_np_dtype(kind.elem_type).name)


def _layer_names(model: ModelProto, origins: Mapping[str, Origin]) -> dict[str, str]:
    """Weights of products by their keys; one that several nodes multiply by is called as in the first."""
    keys = {origin.initializer: key for key, origin in origins.items()}
    names: dict[str, str] = {}
    for use in model_uses(model):
        if use.weight.name in keys:
            names.setdefault(keys[use.weight.name], product_name(use))
    return names


def _origin(place: Place) -> Origin:
    source = place.source
    return Origin(source.name, source.array.dtype.name, place.steps, source.constant_node)


def _tensor(array: Array) -> Tensor:
    """A copy; reals in single precision."""
    is_float = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return torch.from_numpy(np.array(array.astype(np.float32) if is_float else array, order="C"))
