"""An ONNX file to a model in memory, or one clear message."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto
from onnx.external_data_helper import load_external_data_for_model

from snowsdeploy.errors import SourceError, first_line

STANDARD_DOMAINS = ("", "ai.onnx")
OLDEST_OPSET = 9


def read_onnx(path: Path) -> ModelProto:
    """Read a model with the tensors that it keeps in files beside it.

    Raises:
        SourceError: The file is missing, damaged or empty, names tensors outside of its folder or in files that are
            not there, or is older than opset 9.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not model.HasField("graph") or not (model.graph.node or model.graph.initializer):
        raise _damaged(path, "it holds no graph")
    _load_external(path, model)
    opset = main_opset(model)
    if opset < OLDEST_OPSET:
        raise SourceError(
            "the ONNX file is of an opset that is too old",
            seen=f"{path}: opset {opset}" if opset else f"{path}: no opset of the main domain",
            allowed=f"opset {OLDEST_OPSET} or newer",
            fix="export it again, or raise it by onnx.version_converter.convert_version(model, 17)",
        )
    if model.graph.sparse_initializer:
        raise SourceError(
            "the ONNX file holds sparse initializers",
            seen=f"{path}: {model.graph.sparse_initializer[0].values.name}",
            allowed="dense initializers",
            fix="export the model with dense weights",
        )
    return model


def main_opset(model: ModelProto) -> int:
    """The version of the standard operators; 0 where none is given."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=0)


def without_functions(model: ModelProto) -> ModelProto:
    """The model with the bodies of its local functions in place of their calls; itself where it has none."""
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def digest(path: Path) -> str:
    """SHA-256 of the file, followed by the files that its tensors are in where there are such."""
    total = hashlib.sha256(path.read_bytes())
    locations = {_location(tensor) for tensor in _external(onnx.load(path, load_external_data=False))}
    for location in sorted(locations):
        with (path.parent / location).open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def tensors_of(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor of a graph: initializers, attributes of nodes, and those of inner graphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else attribute.tensors)
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from tensors_of(inner)


def _external(model: ModelProto) -> list[TensorProto]:
    return [tensor for tensor in tensors_of(model.graph) if tensor.data_location == TensorProto.EXTERNAL]


def _location(tensor: TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _load_external(path: Path, model: ModelProto) -> None:
    folder = path.parent.resolve()
    for tensor in _external(model):
        location = _location(tensor)
        file = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
            raise SourceError(
                "the ONNX file names a tensor outside of its folder",
                seen=f"{tensor.name}: {location or 'no file'}",
                allowed=f"files in {folder}",
                fix="save the model again with onnx.save_model(..., save_as_external_data=True) in one folder",
            )
        if not file.is_file():
            raise SourceError(
                "a file of tensors that belongs to the ONNX file is missing",
                seen=f"{tensor.name}: {file}",
                fix=f"copy {location} beside {path.name}",
            )
    try:
        load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: object) -> SourceError:
    kind = f"{type(error).__name__}: " if isinstance(error, Exception) else ""
    return SourceError(
        "the ONNX file is missing, truncated or damaged",
        seen=f"{path}: {kind}{first_line(error)}",
        fix="copy or download it again and compare its size",
    )
