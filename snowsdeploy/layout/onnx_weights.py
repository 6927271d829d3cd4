"""Constants of an ONNX graph as their consumers see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from snowsdeploy.errors import LayoutError

STANDARD_DOMAINS = {"", "ai.onnx"}
# Operators that keep a weight a weight. Anything else between an initializer and a product is arithmetic on weights.
_FOLLOWED = {
    "Identity", "Cast", "CastLike", "QuantizeLinear", "DequantizeLinear", "Reshape", "Squeeze", "Unsqueeze", "Flatten"
}  # fmt: skip
_KEEPS_AXES = {"Identity", "Cast", "CastLike", "QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True)
class ConstantValue:
    """A constant that reaches an operator.

    Attributes:
        name: The initializer, or output of a Constant node, that it comes from.
        stored_shape: Shape there.
        values: As the consumer sees it: quantised weights are dequantised; None when it cannot be read.
        axes: For each axis of `values` the axis of the stored tensor; None when a reshape broke that relation.
        problem: Why the values cannot be read.
    """

    name: str
    stored_shape: tuple[int, ...]
    values: NDArray[np.generic] | None
    axes: tuple[int, ...] | None
    problem: str = ""

    @classmethod
    def stored(cls, name: str, tensor: TensorProto) -> Self:
        """A constant where it is stored."""
        values = numpy_helper.to_array(tensor)
        return cls(name, values.shape, values, tuple(range(values.ndim)))

    def unreadable(self, problem: str) -> Self:
        """The same constant after something that hides its values."""
        return replace(self, values=None, axes=None, problem=problem)


class OnnxWeights:
    """Finds the constants of a graph and follows them to where they are stored.

    Args:
        graph: The graph, topologically sorted as ONNX requires.
        opsets: Domain -> version.
        outer: The enclosing graph's constants, for a subgraph of If, Loop or Scan.

    Raises:
        LayoutError: Weights are stored as sparse tensors.
    """

    def __init__(self, graph: GraphProto, opsets: Mapping[str, int], outer: OnnxWeights | None = None) -> None:
        _refuse_sparse(graph)
        self._opsets = dict(opsets)
        self._stored: dict[str, TensorProto] = dict(outer._stored) if outer else {}
        self._producers: dict[str, NodeProto] = dict(outer._producers) if outer else {}
        self._stored.update({t.name: t for t in graph.initializer})
        self._constant: set[str] = set(self._stored) | (outer._constant if outer else set())
        for node in graph.node:
            self._producers.update(dict.fromkeys(node.output, node))
            if self._is_constant(node):
                self._constant.update(node.output)

    def __contains__(self, name: str) -> bool:
        return name in self._constant

    def follow(self, name: str) -> ConstantValue | None:
        """Walk from an operator's input back to the stored constant; None when the value depends on data."""
        if name not in self._constant:
            return None
        if name in self._stored:
            return ConstantValue.stored(name, self._stored[name])
        node = self._producers[name]
        if node.op_type == "Constant":
            return _constant_node(node)
        inputs = [self.follow(i) if i else None for i in node.input]
        given = [i for i in inputs if i is not None]
        main = inputs[0] or given[0]
        if unread := next((i for i in given if i.values is None), None):
            return unread
        if node.domain not in STANDARD_DOMAINS or node.op_type not in _FOLLOWED | {"Transpose"}:
            largest = max(given, key=lambda i: prod(i.stored_shape))
            return largest.unreadable(f"the weight is computed in the file by {node.op_type}")
        return self._apply(node, main, inputs)

    def _apply(self, node: NodeProto, main: ConstantValue, inputs: list[ConstantValue | None]) -> ConstantValue:
        assert main.values is not None
        if node.op_type == "Transpose":
            default = tuple(reversed(range(main.values.ndim)))
            perm = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), default)
            axes = tuple(main.axes[p] for p in perm) if main.axes is not None else None
            return replace(main, values=main.values.transpose(perm), axes=axes)
        feeds = {name: i.values for name, i in zip(node.input, inputs, strict=True) if i is not None}
        try:
            values = _evaluate(node, self._opsets, feeds)
        except Exception as error:
            return main.unreadable(f"{node.op_type} cannot be evaluated ({type(error).__name__})")
        return replace(main, values=values, axes=main.axes if node.op_type in _KEEPS_AXES else None)

    def _is_constant(self, node: NodeProto) -> bool:
        if node.op_type == "Constant":
            return True
        inputs = [i for i in node.input if i]
        return bool(inputs) and not any(subgraphs(node)) and all(i in self._constant for i in inputs)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs that an If, Loop or Scan node carries."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _constant_node(node: NodeProto) -> ConstantValue:
    name = node.output[0]
    tensor = next((a.t for a in node.attribute if a.name == "value"), None)
    if tensor is not None:
        return ConstantValue.stored(name, tensor)
    # The other forms (value_float, value_ints, ...) are scalars and vectors: no weights, but Reshape takes them.
    values = _evaluate(node, {"": 18}, {})
    return ConstantValue(name, values.shape, values, tuple(range(values.ndim)))


def _evaluate(node: NodeProto, opsets: dict[str, int], feeds: dict[str, Any]) -> NDArray[np.generic]:
    outputs: Sequence[Any] = ReferenceEvaluator(node, opsets=opsets).run(None, feeds)  # type: ignore[assignment]  # onnx annotates a dict, returns a list
    return np.asarray(outputs[0])


def _refuse_sparse(graph: GraphProto) -> None:
    names = [t.values.name for t in graph.sparse_initializer]
    names += [n.output[0] for n in graph.node if any(a.name == "sparse_value" for a in n.attribute)]
    if names:
        raise LayoutError(
            "the file stores weights as sparse tensors",
            seen=", ".join(names[:6]),
            allowed="dense initializers: engines read the 2:4 layout from them",
            fix="write the zeros out as ordinary initializers",
        )
