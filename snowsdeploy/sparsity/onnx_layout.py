"""The checker: proves an N:M layout on the initializers of an ONNX file.

TensorRT's rule: for a convolution weight `[K, C, R, S]`, in every block of four consecutive `c` at each `(k, r, s)` at
most two values are non-zero; for Gemm and MatMul the blocks lie along the reduction axis.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from snowsdeploy.artifacts import LayerSparsity, SparsityEvidence
from snowsdeploy.errors import LayoutError, SourceError
from snowsdeploy.sparsity.evidence import layer_sparsity, summarise
from snowsdeploy.sparsity.pattern import Pattern

LAYER_MAP_KEY = "snowsdeploy.layers"  # model metadata: JSON, weight name -> names of the nodes that use it
_PRODUCTS = {"Conv", "Gemm", "MatMul"}
_ELEMENTWISE = {"Identity", "Cast", "QuantizeLinear"}  # the layout survives; QuantizeLinear when its zero point is zero


@dataclass(frozen=True)
class StoredWeight:
    """A constant that reaches a product, as stored, and the axis of its groups there."""

    name: str
    values: NDArray[np.generic]
    axis: int


class OnnxWeights:
    """Finds the constants of a graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Index initializers and producers."""
        self._initializers = {t.name: t for t in model.graph.initializer}
        self._producers = {name: node for node in model.graph.node for name in node.output}
        if model.graph.sparse_initializer:
            raise LayoutError(
                "the file stores weights as sparse tensors",
                seen=f"{len(model.graph.sparse_initializer)} sparse initializers",
                allowed="dense initializers: for 2:4 they are smaller, and engines read their layout",
            )

    def follow(self, name: str, axis: int, rank: int | None = None) -> StoredWeight | None:
        """Walk from a product's input to the stored constant; None when the value is computed from data.

        Args:
            name: The value's name.
            axis: Axis of the groups in that value.
            rank: Number of axes, where known.
        """
        if name in self._initializers:
            values = numpy_helper.to_array(self._initializers[name])
            return StoredWeight(name, values, axis % values.ndim if values.ndim else 0)
        node = self._producers.get(name)
        if node is None:
            return None
        if node.op_type == "Constant":
            tensor = next((a.t for a in node.attribute if a.name == "value"), None)
            return None if tensor is None else StoredWeight(name, numpy_helper.to_array(tensor), axis)
        if node.op_type in _ELEMENTWISE:
            return self.follow(node.input[0], axis, rank)
        if node.op_type == "Transpose":
            return self._transposed(node, axis, rank)
        if node.op_type == "DequantizeLinear":
            return self._dequantized(node, axis, rank)
        return None

    def _transposed(self, node: NodeProto, axis: int, rank: int | None) -> StoredWeight | None:
        perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
        if perm is None:
            stored = self.follow(node.input[0], 0, rank)
            if stored is None:
                return None
            ndim = stored.values.ndim
            return self.follow(node.input[0], ndim - 1 - axis % ndim, ndim)
        return self.follow(node.input[0], perm[axis % len(perm)], len(perm))

    def _dequantized(self, node: NodeProto, axis: int, rank: int | None) -> StoredWeight | None:
        """A stored integer means zero when it equals the zero point."""
        stored = self.follow(node.input[0], axis, rank)
        if stored is None or len(node.input) < 3 or not node.input[2]:  # noqa: PLR2004
            return stored
        zero = self.follow(node.input[2], 0)
        if zero is None:
            return None
        along = next((a.i for a in node.attribute if a.name == "axis"), 1)
        points = zero.values.astype(np.int64)
        if points.ndim == 1 and points.size > 1:
            shape = [1] * stored.values.ndim
            shape[along] = -1
            points = points.reshape(shape)
        return StoredWeight(stored.name, stored.values.astype(np.int64) - points, stored.axis)


def inspect_onnx(path: Path, pattern: Pattern) -> SparsityEvidence:
    """Read the layout of every constant convolution and matrix-product weight in a file.

    Raises:
        SourceError: The file cannot be read as ONNX.
        LayoutError: Weights are stored as sparse tensors.
    """
    try:
        model = onnx.load(path)
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise SourceError("the file cannot be read as ONNX", seen=f"{path}: {error}", fix="check the path") from error
    names = _layer_names(model)
    weights = OnnxWeights(model)
    rows = [row for node in model.graph.node for row in _inspect_node(node, weights, names, pattern)]
    return summarise(path, pattern, rows)


def check_onnx(path: Path, pattern: Pattern, expected: Sequence[str]) -> SparsityEvidence:
    """Prove that layers hold the pattern in a file.

    Args:
        path: The ONNX file.
        pattern: What must hold.
        expected: Names of the layers (weight names without `.weight`).

    Raises:
        LayoutError: Layers are missing from the file or break the pattern; all of them are named.
        SourceError: The file cannot be read.
    """
    evidence = inspect_onnx(path, pattern)
    by_name: dict[str, list[LayerSparsity]] = {}
    for layer in evidence.layers:
        by_name.setdefault(layer.name, []).append(layer)
    missing = [name for name in expected if name not in by_name]
    broken = [
        f"{row.name} ({row.violations} of {row.groups} groups{'; ' + row.note if row.note else ''})"
        for name in expected
        for row in by_name.get(name, [])
        if not row.layout_valid
    ]
    if missing or broken:
        parts = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"broken: {', '.join(broken)}"] * bool(broken)
        raise LayoutError(
            f"the ONNX file does not hold {pattern} where it must",
            seen=f"{path}: {'; '.join(parts)}",
            allowed=f"at most {pattern.n} non-zeros in {pattern.m} along the reduction axis, in {len(expected)} layers",
        )
    return evidence.model_copy(update={"expected": tuple(expected)})


def _layer_names(model: onnx.ModelProto) -> dict[str, str]:
    """Node name -> layer name, from the map that our exporter writes."""
    text = next((p.value for p in model.metadata_props if p.key == LAYER_MAP_KEY), "{}")
    try:
        layers: dict[str, list[str]] = json.loads(text)
        return {node: weight.removesuffix(".weight") for weight, nodes in layers.items() for node in nodes}
    except (ValueError, AttributeError, TypeError) as error:
        raise LayoutError(f"the metadata {LAYER_MAP_KEY} is damaged", seen=text[:80], fix="export again") from error


def _inspect_node(
    node: NodeProto, weights: OnnxWeights, names: dict[str, str], pattern: Pattern
) -> Iterable[LayerSparsity]:
    if node.op_type not in _PRODUCTS:
        return
    for index, axis in _operands(node):
        stored = weights.follow(node.input[index], axis)
        if stored is None or stored.values.ndim < 2:  # noqa: PLR2004 - a vector has no layout
            continue
        name = names.get(node.name) or stored.name.removesuffix(".weight") or node.name
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        tensor = torch.from_numpy(np.ascontiguousarray(stored.values != 0))
        yield layer_sparsity(
            name=name,
            tensor=stored.name,
            op=node.op_type,
            nonzero=tensor,
            axis=stored.axis,
            pattern=pattern,
            note=f"grouped convolution ({groups} groups)" if groups > 1 else "",
        )


def _operands(node: NodeProto) -> list[tuple[int, int]]:
    """(input index, reduction axis) of the inputs that may be weights."""
    if node.op_type == "Conv":
        return [(1, 1)]
    if node.op_type == "Gemm":
        transposed = {a.name: a.i for a in node.attribute}
        return [(1, 1 if transposed.get("transB") else 0), (0, 0 if transposed.get("transA") else 1)]
    return [(1, -2), (0, -1)]
