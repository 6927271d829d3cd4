"""What the exporter leaves in a model that a shipped file should not have, or should call by another name."""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx_ir as ir

from snowsdeploy.errors import ExportError

BATCH = "batch"


def name_batch(model: ir.Model) -> None:
    """The exporter calls the batch dimension by its symbol (`s77`); users and engines look for `batch`.

    Raises:
        ExportError: The input's first dimension is fixed.
    """
    first = model.graph.inputs[0].shape
    if first is None or not isinstance(first[0], ir.SymbolicDim):
        raise ExportError("the exported input has a fixed batch size", seen=str(first))
    pattern = re.compile(rf"\b{re.escape(str(first[0].value))}\b")
    for value in _values(model):
        if value.shape is None:
            continue
        dims = [
            pattern.sub(BATCH, str(d.value)) if isinstance(d, ir.SymbolicDim) and d.value is not None else d
            for d in value.shape
        ]
        value.shape = ir.Shape(dims)


def name_outputs(model: ir.Model, tensors: list[bool]) -> None:
    """Keep the outputs that are tensors and call them `output`, or `output_0`, `output_1` ... when there are several.

    Args:
        model: The converted model.
        tensors: For each of its outputs whether the program returns a tensor there (a size is none).
    """
    kept = [value for value, tensor in zip(model.graph.outputs, tensors, strict=True) if tensor]
    model.graph.outputs[:] = kept
    for index, value in enumerate(kept):
        value.name = "output" if len(kept) == 1 else f"output_{index}"


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
