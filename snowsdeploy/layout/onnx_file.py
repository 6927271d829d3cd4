"""The door for ONNX files: a model in memory with all its tensors, or one clear message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx.inliner
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto
from onnx.external_data_helper import load_external_data_for_model

from snowsdeploy.errors import SourceError, cause
from snowsdeploy.files import reading, require_regular
from snowsdeploy.machine import available_memory

_MOST_NODES, _MOST_BYTES = 200_000, 1 << 31  # of a file without local functions; protobuf ends at the same size
_DEEPEST = 100  # functions that call one another
_POINTER = b"version https:"
_FunctionId: TypeAlias = tuple[str, str, str]


def read_onnx_file(path: Path, *, tensors: bool = True) -> ModelProto:
    """Read a model.

    Args:
        path: Any ONNX file.
        tensors: Read those that it keeps in files beside it, too.

    Raises:
        SourceError: It is missing, damaged, empty or no regular file, names tensors outside of its folder or in files
            that are not there, or its local functions cannot be put in place of their calls.
    """
    return read_with_digest(path, tensors=tensors)[0]


def read_with_digest(path: Path, *, tensors: bool = True) -> tuple[ModelProto, str]:
    """A model, and the SHA-256 of the bytes that it was read from; tensors in files beside it do not count.

    Args:
        path: As in `read_onnx_file`.
        tensors: Likewise.

    Raises:
        SourceError: As `read_onnx_file`.
    """
    require_regular(path, "the ONNX file is no file", SourceError)
    if not path.exists():
        raise SourceError(
            "the ONNX file does not exist", seen=path, allowed="a file that is there", fix="check the path"
        )
    with reading(lambda error: damaged(path, error)):
        content = path.read_bytes()
        if content.startswith(_POINTER):
            raise SourceError(
                "the ONNX file is a Git LFS pointer, not the model",
                seen=f"{path} ({len(content)} bytes)",
                allowed="the file that the pointer stands for",
                fix="run git lfs pull",
            )
        model = onnx.load_model_from_string(content)
    if not model.HasField("graph") or not (model.graph.node or model.graph.initializer):
        raise damaged(path, "it holds no graph")
    _require_modest_functions(model)
    if tensors:
        _load_external(path, model)
    return model, sha256(content).hexdigest()


def without_functions(model: ModelProto) -> ModelProto:
    """The model with the bodies of its local functions in place of their calls; itself where it has none.

    Raises:
        SourceError: They cannot be put there.
    """
    if not model.functions:
        return model
    with reading(lambda error: _bad_functions(cause(error))):
        return onnx.inliner.inline_local_functions(model)


def tensors_of(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    """Every tensor in the attributes of nodes, and of the graphs that they hold."""
    for node in nodes:
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else attribute.tensors)
        for inner in subgraphs(node):
            yield from inner.initializer
            yield from tensors_of(inner.node)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs that an If, Loop or Scan node carries."""
    for attribute in node.attribute:
        yield from ([attribute.g] if attribute.HasField("g") else attribute.graphs)


def external_tensors(model: ModelProto) -> list[TensorProto]:
    """Those that lie in files beside the model's."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    every = (*model.graph.initializer, *tensors_of(nodes))
    return [tensor for tensor in every if tensor.data_location == TensorProto.EXTERNAL]


def external_entry(tensor: TensorProto, key: str) -> str:
    """What a tensor says of where it lies: `location`, `offset` or `length`; empty where it says nothing."""
    return next((entry.value for entry in tensor.external_data if entry.key == key), "")


def onnx_digest(path: Path) -> str:
    """SHA-256 of the file, followed by the files that its tensors are in where there are such.

    Raises:
        SourceError: As `read_onnx_file`.
    """
    total = sha256(path.read_bytes())
    locations = {external_entry(tensor, "location") for tensor in external_tensors(read_onnx_file(path, tensors=False))}
    for location in sorted(locations):
        with (path.parent / location).open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def damaged(path: Path, error: object) -> SourceError:
    """The error for what is no ONNX file, or a broken one."""
    reason = cause(error) if isinstance(error, Exception) else error
    return SourceError(
        "the file cannot be read as ONNX: it is truncated, damaged or another kind of file",
        seen=f"{path}: {reason}",
        allowed="a complete ONNX model",
        fix="check the path; copy or download it again and compare its size",
    )


def _load_external(path: Path, model: ModelProto) -> None:
    folder, total = path.parent.resolve(), 0
    for tensor in external_tensors(model):
        location = external_entry(tensor, "location")
        with reading(lambda error: damaged(path, error)):
            file = (folder / location).resolve()
            if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
                raise _outside(tensor.name, location, folder)
            if not file.is_file():
                raise SourceError(
                    "a file of tensors (external data) that belongs to the ONNX file is missing",
                    seen=f"{tensor.name}: {file}",
                    allowed=f"every file that {path.name} names, where it names it",
                    fix=f"copy {location} beside {path.name}",
                )
            total += int(external_entry(tensor, "length") or file.stat().st_size)
    if total > available_memory():
        raise damaged(path, f"its external data are {total} bytes, more than the memory that is left")
    with reading(lambda error: damaged(path, error)):
        load_external_data_for_model(model, str(folder))


def _outside(name: str, location: str, folder: Path) -> SourceError:
    return SourceError(
        "the ONNX file names a tensor outside of its folder",
        seen=f"{name}: {location or 'no file'}",
        allowed=f"files in {folder}",
        fix="save the model again with onnx.save_model(..., save_as_external_data=True) in one folder",
    )


@dataclass(frozen=True)
class _Size:
    nodes: int = 0
    bytes: int = 0

    def __add__(self, other: _Size) -> _Size:
        return _Size(self.nodes + other.nodes, self.bytes + other.bytes)


def _require_modest_functions(model: ModelProto) -> None:
    """Count before anything is inlined: functions that call one another twice double with each."""
    functions = {_id(function): function for function in model.functions}
    if functions:
        size = _inlined(model.graph.node, functions, {}, ())
        if size.nodes > _MOST_NODES or size.bytes > _MOST_BYTES:
            raise _bad_functions(f"{size.nodes} nodes, {size.bytes} bytes without functions")


def _inlined(
    nodes: Iterable[NodeProto],
    functions: dict[_FunctionId, FunctionProto],
    known: dict[_FunctionId, _Size],
    above: tuple[_FunctionId, ...],
) -> _Size:
    """How much nodes are when calls are replaced by what they call."""
    size = _Size()
    for node in nodes:
        called = (node.domain, node.op_type, node.overload)
        if called in functions:
            if called in above:
                raise _bad_functions(f"{called[0]}.{called[1]} calls itself")
            if len(above) == _DEEPEST:
                raise _bad_functions(f"calls that are more than {_DEEPEST} deep")
            if called not in known:
                known[called] = _inlined(functions[called].node, functions, known, (*above, called))
            size += known[called]
            continue
        size += _Size(1, node.ByteSize())
        for graph in subgraphs(node):
            size += _inlined(graph.node, functions, known, above)
    return size


def _id(function: FunctionProto) -> _FunctionId:
    return function.domain, function.name, function.overload


def _bad_functions(seen: str) -> SourceError:
    return SourceError(
        "the local functions of the ONNX file cannot be put in place of their calls",
        seen=seen,
        allowed=f"functions that do not call themselves, {_MOST_NODES} nodes and 2 GiB without them",
        fix="export the model again without local functions",
    )
