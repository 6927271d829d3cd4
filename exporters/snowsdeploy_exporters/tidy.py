"""What the exporter leaves in a model that a shipped file should not have, or should call by another name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from snowsdeploy.values import ModelSignature

BATCH = "batch"


def name_axes(model: ir.Model, signature: ModelSignature) -> None:
    """The exporter calls axes that vary by symbols (`s77`); users and engines look for `batch` and names."""
    names: dict[str, str] = {}
    by_place = {(axis.input, axis.axis): axis.name for axis in signature.dynamic}
    for info, value in zip(signature.inputs, model.graph.inputs, strict=True):
        for place, size in enumerate(value.shape or ()):
            if isinstance(size, ir.SymbolicDim) and size.value is not None:
                name = BATCH if place == 0 else by_place.get((info.name, place), f"{info.name}_{place}")
                names.setdefault(str(size.value), name)
    symbols = sorted(names, key=len, reverse=True)
    if not symbols:
        return
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, symbols))})\b")
    for value in _values(model):
        if value.shape is None:
            continue
        dims = [
            pattern.sub(lambda found: names[found[1]], str(d.value))
            if isinstance(d, ir.SymbolicDim) and d.value is not None
            else d
            for d in value.shape
        ]
        value.shape = ir.Shape(dims)


def name_outputs(model: ir.Model, tensors: list[bool], names: Sequence[str]) -> None:
    """Keep the outputs that are tensors, and name them.

    Args:
        model: The converted model.
        tensors: For each of its outputs whether the program returns a tensor there (a size is none).
        names: Of those that are tensors.
    """
    kept = [value for value, tensor in zip(model.graph.outputs, tensors, strict=True) if tensor]
    model.graph.outputs[:] = kept
    taken = {value.name: value for value in _values(model)}
    for value, name in zip(kept, names, strict=True):
        other = taken.get(name)
        if other is not None and other is not value:
            other.name = f"{name}_inside"
        value.name = name


def strip_traces(model: ir.Model) -> None:
    """Stack traces hold paths of this machine, and are most of a small file."""
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        graph.metadata_props.clear()
        graph.doc_string = None
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
    for value in _values(model):
        value.metadata_props.clear()
        value.doc_string = None
    model.doc_string = None


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """Every value, some more than once."""
    yield from model.graph.inputs
    yield from model.graph.outputs
    yield from model.graph.initializers.values()
    for node in model.graph.all_nodes():
        yield from node.outputs
