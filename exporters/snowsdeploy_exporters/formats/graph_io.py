"""Inputs and outputs of an ONNX file, as servers and engines describe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from snowsdeploy.errors import ExportError
from snowsdeploy.layout.onnx_file import read_onnx_file

BATCHES = (1, 8, 32)  # smallest, most frequent and largest that engines are built for


@dataclass(frozen=True)
class Tensor:
    """One input or output.

    Attributes:
        name: In the file.
        kind: An `onnx.TensorProto` data type.
        dims: Without the batch axis; -1 where the file leaves the size open.
    """

    name: str
    kind: int
    dims: tuple[int, ...]

    def shape(self, batch: int) -> str:
        """`8x3x224x224`, as TensorRT's tools write it."""
        return "x".join(map(str, (batch, *self.dims)))


def read_io(path: Path) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs and outputs of a file.

    Raises:
        ExportError: A tensor has no batch axis in front.
    """
    graph = read_onnx_file(path, tensors=False).graph
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    inputs, outputs = ([_read(value, batch, path) for value in values] for values in (graph.input, graph.output))
    return tuple(inputs), tuple(outputs)


def shapes(inputs: Sequence[Tensor], batch: int) -> str:
    """`image:8x3x224x224,meta:8x4`, as TensorRT's tools write it."""
    return ",".join(f"{value.name}:{value.shape(batch)}" for value in inputs)


def _read(value: onnx.ValueInfoProto, batch: str, path: Path) -> Tensor:
    tensor = value.type.tensor_type
    axes = list(tensor.shape.dim)
    if not axes or not batch or axes[0].dim_param != batch:
        raise ExportError(
            "an input or output has no batch axis in front",
            seen=f"{path.name}: {value.name} {[d.dim_param or d.dim_value for d in axes]}",
            allowed="[batch, ...]",
            fix="leave this format out of --format",
        )
    return Tensor(value.name, tensor.elem_type, tuple(-1 if d.dim_param else d.dim_value for d in axes[1:]))
