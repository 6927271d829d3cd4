"""A file's values against the program's, in graph order: where an error enters, and how much each node adds.

In an imported file values are found by what each graph node remembers of the ONNX node that it came from. Elsewhere
torch's exporter names a value after the graph node that gives it; its optimiser, the folding of normalisations and the
conversions to FP16 and INT8 keep those names. On ResNet-20, DeiT-tiny, ConvNeXt, Swin and MobileNetV3 every value under
a node's name agrees with that node's. Values under other names are steps inside one operator, which ONNX writes with
several nodes: the product of a linear layer is known all the same, in FP16 and INT8 files the others are compared with
the FP32 file, and what has no reference is judged with the next value that has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto
from torch import Tensor
from torch.fx import Node

from snowsdeploy.batch import Batch
from snowsdeploy.diagnose.intermediates import Values, program_values, recompute
from snowsdeploy.layout.onnx_layout import node_layers
from snowsdeploy.models.graph import argument, base_name
from snowsdeploy.models.onnx.module import VALUE
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.values import ValueDifference
from snowsdeploy.values.debug import Reference

_INSERTED = ("Cast", "QuantizeLinear", "DequantizeLinear")
_TINY = float(np.finfo(np.float64).tiny)
Array = NDArray[Any]


@dataclass(frozen=True)
class _Expected:
    """What a value should be, and the graph node whose value that is, where there is one."""

    values: Array
    source: Reference
    node: Node | None = None


@dataclass(frozen=True)
class Comparison:
    """A file and its references on the same images.

    Attributes:
        model: The file.
        found: Its values.
        graph: The program that it was exported from.
        images: `[batch, C, H, W]`.
        fp32: Values of the FP32 file, when the file is in another precision.
    """

    model: ModelProto
    found: Values
    graph: ProgramGraph
    images: Batch
    fp32: Mapping[str, Array]

    def rows(self) -> Iterator[ValueDifference]:
        """Every value that has a reference, in graph order."""
        errors: dict[str, float] = {}
        for node in self.model.graph.node:
            for name in node.output:
                if name not in self._references:
                    continue
                region, inputs = self._region(name)
                expected = self._references[name]
                relative, largest = difference(self.found[name], expected.values)
                errors[name] = relative
                error_in = max((errors.get(i, 0.0) for i in inputs), default=0.0)
                yield ValueDifference(
                    value=name,
                    operator=node.op_type,
                    node=node.name,
                    nodes=tuple(n.name for n in region),
                    layers=tuple(dict.fromkeys(layer for n in region for layer in self._layers_of(n))),
                    reference=expected.source,
                    relative_l2=relative,
                    max_abs=largest,
                    error_in=error_in,
                    added=self._added(name, expected.node, relative, error_in),
                )

    @cached_property
    def compared(self) -> float:
        """Share of the file's floating-point values that have a reference; what a conversion inserted is none."""
        own = [name for name in self.found if self._operator(name) not in _INSERTED or name in self._references]
        return len(self._references) / max(len(own), 1)

    @cached_property
    def _expected(self) -> dict[Node, Any]:
        return program_values(self.graph, self.images)

    @cached_property
    def _nodes(self) -> dict[str, Node]:
        """Value name -> graph node."""
        nodes = {n.name: n for n in self.graph.nodes} if self.graph.program.file is None else self._last_steps()
        output = next(n for n in self.graph.program.exported.graph.nodes if n.op == "output")
        tensors = [n for n in output.args[0] if isinstance(n, Node) and isinstance(n.meta.get("val"), Tensor)]
        names = [o.name for o in self.model.graph.output]
        nodes |= dict(zip(names, tensors, strict=False))
        return {name: node for name, node in nodes.items() if isinstance(self._expected[node], Tensor)}

    def _last_steps(self) -> dict[str, Node]:
        """Value name -> the last graph node of those that its ONNX node was imported as."""
        values = self._expected
        last = {n.meta.get("custom", {}).get(VALUE, ""): n for n in self.graph.nodes}
        return {
            name: node
            for name, node in last.items()
            if name in self.found and tuple(getattr(values[node], "shape", ())) == self.found[name].shape
        }

    @cached_property
    def _references(self) -> dict[str, _Expected]:
        """Value name -> what it should be."""
        references: dict[str, _Expected] = {}
        for name in self.found:
            if name in self._nodes:
                node = self._nodes[name]
                references[name] = _Expected(self._expected[node].numpy(), "torch", node)
            elif name in self.fp32:
                references[name] = _Expected(self.fp32[name], "fp32 file")
        return references | self._products()

    def _products(self) -> dict[str, _Expected]:
        """A linear layer on more than two axes is a MatMul and an Add: what the MatMul gives is known too."""
        found: dict[str, _Expected] = {}
        for node in self.model.graph.node:
            source = self._nodes.get(node.output[0]) if node.op_type == "Add" else None
            if source is None or base_name(source) != "linear":
                continue
            bias = argument(source, 2, "bias", None)
            sources = [self._before_inserted(i) for i in node.input]
            products = [i for i in sources if self._operator(i) == "MatMul" and i not in self._nodes]
            if isinstance(bias, Node) and len(products) == 1 and products[0] in self.found:
                product = self._expected[source] - self._expected[bias]
                found[products[0]] = _Expected(product.numpy(), "torch")
        return found

    @cached_property
    def _producers(self) -> dict[str, NodeProto]:
        return {name: node for node in self.model.graph.node for name in node.output}

    @cached_property
    def _layers(self) -> dict[str, list[str]]:
        return node_layers(self.model)

    def _layers_of(self, node: NodeProto) -> list[str]:
        """The layers that a node multiplies for, or whose output it quantizes."""
        if node.op_type == "QuantizeLinear" and node.input[0] in self._producers:
            return self._layers.get(self._producers[node.input[0]].name, [])
        return self._layers.get(node.name, [])

    def _operator(self, value: str) -> str:
        """The operator that gives a value; empty for inputs and weights."""
        return self._producers[value].op_type if value in self._producers else ""

    def _before_inserted(self, value: str) -> str:
        """The value that a conversion's casts or quantization pass on under this name."""
        while self._operator(value) in _INSERTED:
            value = self._producers[value].input[0]
        return value

    def _region(self, name: str) -> tuple[list[NodeProto], set[str]]:
        """The nodes between a value and the compared values before it, in graph order; and those values."""
        region: dict[str, NodeProto] = {}
        inputs: set[str] = set()
        frontier = [self._producers[name]]
        while frontier:
            node = frontier.pop()
            if node.output[0] in region:
                continue
            region[node.output[0]] = node
            for source in node.input:
                if source in self._references:
                    inputs.add(source)
                elif source in self.found or self._operator(source) == "QuantizeLinear":
                    frontier.append(self._producers[source])
        return [n for n in self.model.graph.node if n.output[0] in region], inputs

    def _added(self, name: str, node: Node | None, relative: float, error_in: float) -> float | None:
        """The error of a value beside what the program's operation makes of the file's own inputs."""
        if not np.isfinite(error_in):
            return None
        if node is None:
            return max(relative - error_in, 0.0)
        expected = recompute(self.graph, node, self._own, self._own_nodes)
        return difference(self.found[name], expected.numpy())[0]

    @cached_property
    def _own(self) -> dict[Node, Any]:
        """The program's values with the file's in their place where it has them, in float32."""
        own = {
            node: torch.from_numpy(np.asarray(self.found[name], dtype=np.float32))
            for name, node in self._nodes.items()
            if name in self.found and self.found[name].shape == tuple(self._expected[node].shape)
        }
        return self._expected | own

    @cached_property
    def _own_nodes(self) -> set[Node]:
        return {node for name, node in self._nodes.items() if name in self.found}


def difference(found: Array, expected: Array) -> tuple[float, float]:
    """Relative L2 and largest absolute error; infinite when shapes differ or a found value is NaN or Inf alone."""
    if found.shape != expected.shape:
        return float("inf"), float("inf")
    if found.dtype == bool or not found.size:
        return 0.0, 0.0
    a, e = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(e)  # a mask of -inf in front of a softmax is no defect where both have it
    if not np.array_equal(a[~finite], e[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return float("inf"), float("inf")
    delta = a[finite] - e[finite]
    error, scale = (float(np.sqrt(np.square(v).sum())) for v in (delta, e[finite]))
    return error / scale if scale > _TINY else error, float(np.abs(delta).max(initial=0.0))
