"""Constants of an ONNX graph as their consumers see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from snowsdeploy.errors import LayoutError, cause
from snowsdeploy.layout.onnx_file import subgraphs

STANDARD_DOMAINS = {"", "ai.onnx"}
# Operators that keep a weight a weight. Anything else between an initializer and a product is arithmetic on weights.
_SCALED = {"QuantizeLinear", "DequantizeLinear"}
_FOLLOWED = {
    *("Identity", "Cast", "CastLike", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"),
    *_SCALED,
}
_NO_NUMBERS = "OSUc"  # NumPy's kinds of texts, objects and complex numbers
_KEEPS_AXES = {"Cast", "CastLike", *_SCALED}


@dataclass(frozen=True)
class ConstantValue:
    """A constant that reaches an operator.

    Attributes:
        name: The initializer, or output of a Constant node, that it comes from.
        stored_shape: Shape there; None where the file does not tell.
        values: As the consumer sees it: quantised weights are dequantised; None when it cannot be read.
        axes: For each axis of `values` the axis of the stored tensor; None when a reshape broke that relation.
        problem: Why the values cannot be read.
    """

    name: str
    stored_shape: tuple[int, ...] | None
    values: NDArray[np.generic] | None
    axes: tuple[int, ...] | None
    problem: str = ""

    @classmethod
    def stored(cls, name: str, tensor: TensorProto) -> Self:
        """A constant where it is stored."""
        shape = tuple(tensor.dims)
        try:
            values = numpy_helper.to_array(tensor)
        except Exception as error:  # a type that onnx does not know, or fewer values than the shape has
            return cls(name, shape, None, None, f"the stored tensor cannot be read ({cause(error)})")
        if values.shape != shape or values.dtype.kind in _NO_NUMBERS:
            return cls(name, shape, None, None, f"it is no tensor of real numbers of its shape ({values.dtype})")
        return cls(name, shape, values, tuple(range(values.ndim)))

    def unreadable(self, problem: str) -> Self:
        """The same constant after something that hides its values."""
        return replace(self, values=None, axes=None, problem=problem)

    @property
    def may_be_matrix(self) -> bool:
        """Whether it has two axes or more, as far as that is known."""
        shape = self.stored_shape if self.values is None else self.values.shape
        return shape is None or len(shape) >= 2


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
        self._opsets, self._outer = dict(opsets), outer
        self._stored: dict[str, TensorProto] = {t.name: t for t in graph.initializer}
        self._producers: dict[str, NodeProto] = {}
        self._constant: set[str] = set(self._stored)
        for node in graph.node:
            self._producers.update(dict.fromkeys(node.output, node))
            if self._is_constant(node):
                self._constant.update(node.output)

    def __contains__(self, name: str) -> bool:
        return name in self._constant or (self._outer is not None and name in self._outer)

    def follow(self, name: str) -> ConstantValue | None:
        """Walk from an operator's input back to the stored constant; None when the value depends on data."""
        if name not in self:
            return None
        order = self._inputs_first(name)
        readers = Counter(i for computed in order for i in self._inputs(computed))
        values: dict[str, ConstantValue] = {}
        for computed in order:
            values[computed] = self._value(computed, values)
            for i in self._inputs(computed):
                readers[i] -= 1
                if not readers[i] and i != name:  # a long chain must not hold every step in memory
                    values.pop(i, None)
        return values[name]

    def _inputs_first(self, name: str) -> list[str]:
        """The constants that one is computed from, and it, each after its inputs; one of a cycle comes before them."""
        order: list[str] = []
        entered: set[str] = set()
        pending = [(name, False)]
        while pending:
            current, inputs_done = pending.pop()
            if inputs_done:
                order.append(current)
            elif current not in entered:
                entered.add(current)
                pending.append((current, True))
                pending += [(i, False) for i in self._inputs(current) if i not in entered]
        return order

    def _inputs(self, name: str) -> set[str]:
        """Names of the constants that one is computed from; empty for one that is stored."""
        source = self._source(name)
        return {i for i in source.input if i} if isinstance(source, NodeProto) else set()

    def _source(self, name: str) -> TensorProto | NodeProto:
        """Where a constant is stored, or what computes it."""
        if self._outer is not None and name not in self._constant:
            return self._outer._source(name)
        return self._stored[name] if name in self._stored else self._producers[name]

    def _value(self, name: str, values: Mapping[str, ConstantValue]) -> ConstantValue:
        source = self._source(name)
        if isinstance(source, TensorProto):
            return ConstantValue.stored(name, source)
        if source.op_type == "Constant":
            return _constant_node(name, source)
        if not all(i in values for i in source.input if i):
            return ConstantValue(name, None, None, None, f"{source.op_type} computes it from itself")
        inputs = [values[i] if i else None for i in source.input]
        given = [i for i in inputs if i is not None]
        main = inputs[0] or given[0]
        if unread := next((i for i in given if i.values is None), None):
            return unread
        if source.domain not in STANDARD_DOMAINS or source.op_type not in _FOLLOWED:
            largest = max(given, key=lambda i: prod(i.stored_shape or ()))
            return largest.unreadable(f"the weight is computed in the file by {source.op_type}")
        try:
            return self._apply(source, main, inputs)
        except Exception as error:  # whatever onnx makes of attributes and shapes that do not fit
            return main.unreadable(f"{source.op_type} cannot be evaluated ({type(error).__name__})")

    def _apply(self, node: NodeProto, main: ConstantValue, inputs: list[ConstantValue | None]) -> ConstantValue:
        assert main.values is not None
        if node.op_type == "Identity":
            return main
        if node.op_type == "Transpose":
            default = tuple(reversed(range(main.values.ndim)))
            perm = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), default)
            axes = tuple(main.axes[p] for p in perm) if main.axes is not None else None
            return replace(main, values=main.values.transpose(perm), axes=axes)
        if node.op_type in _SCALED:
            _require_scales(main.values, inputs[1:])
        feeds = {name: i.values for name, i in zip(node.input, inputs, strict=True) if i is not None}
        values = _evaluate(node, self._opsets, feeds)
        return replace(main, values=values, axes=main.axes if node.op_type in _KEEPS_AXES else None)

    def _is_constant(self, node: NodeProto) -> bool:
        if node.op_type == "Constant":
            return True
        inputs = [i for i in node.input if i]
        return bool(inputs) and not any(subgraphs(node)) and all(i in self for i in inputs)


def _require_scales(values: NDArray[np.generic], scales: Sequence[ConstantValue | None]) -> None:
    """Scales of more values than there are would spread a small weight over all memory."""
    for scale in (given.values for given in scales if given is not None and given.values is not None):
        blocks = scale.ndim == values.ndim and scale.size <= values.size
        if not (blocks or scale.size in (1, *values.shape)):
            raise ValueError("scales do not fit")


def _constant_node(name: str, node: NodeProto) -> ConstantValue:
    tensor = next((a.t for a in node.attribute if a.name == "value"), None)
    if tensor is not None:
        return ConstantValue.stored(name, tensor)
    # The other forms (value_float, value_ints, ...) are scalars and vectors: no weights, but Reshape takes them.
    try:
        values = _evaluate(node, {"": 18}, {})
    except Exception as error:  # onnx raises many types for a node that lacks what it needs
        return ConstantValue(name, None, None, None, f"the Constant node has no value ({cause(error)})")
    return ConstantValue(name, values.shape, values, tuple(range(values.ndim)))


def _evaluate(node: NodeProto, opsets: dict[str, int], feeds: dict[str, Any]) -> NDArray[np.generic]:
    outputs: Sequence[Any] = ReferenceEvaluator(node, opsets=opsets).run(None, feeds)  # type: ignore[assignment]  # onnx annotates a dict, returns a list
    return np.asarray(outputs[0])


def _refuse_sparse(graph: GraphProto) -> None:
    names = [t.values.name for t in graph.sparse_initializer]
    names += [", ".join(n.output) for n in graph.node if any(a.name == "sparse_value" for a in n.attribute)]
    if names:
        raise LayoutError(
            "the file stores weights as sparse tensors",
            seen=", ".join(names[:6]),
            allowed="dense initializers: engines read the 2:4 layout from them",
            fix="write the zeros out as ordinary initializers",
        )
