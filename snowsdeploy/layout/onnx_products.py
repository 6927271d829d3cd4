"""Which operators of an ONNX graph multiply by weights, and along which axis they reduce.

TensorRT's rule: for a convolution weight `[K, C, R, S]`, in every block of four consecutive `c` at each `(k, r, s)` at
most two values are non-zero; for Gemm and MatMul the blocks lie along the reduction axis.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto

from snowsdeploy.layout.onnx_file import subgraphs
from snowsdeploy.layout.onnx_weights import STANDARD_DOMAINS, ConstantValue, OnnxWeights
from snowsdeploy.values import layer_name

# Products whose weights are counted, but for which the rule says nothing.
_OUTSIDE_THE_RULE = {
    "ConvTranspose": "transposed convolution: the rule does not cover it",
    "DeformConv": "deformable convolution: the rule does not cover it",
    "Einsum": "Einsum: engines look for weights in Conv, Gemm and MatMul",
    **dict.fromkeys(
        ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"),
        "integer operator: engines look for weights behind QuantizeLinear and DequantizeLinear",
    ),
    **dict.fromkeys(("RNN", "LSTM", "GRU"), "recurrent layer: the rule does not cover it"),
}
_NUMBERED = re.compile(r"onnx::\w+_\d+|\d+")
_PRODUCT_LIKE = re.compile("Conv|Gemm|MatMul|Attention")


@dataclass(frozen=True)
class WeightUse:
    """One constant that a product multiplies by.

    Attributes:
        node: The product.
        weight: Its constant operand.
        axis: Reduction axis of the operand as the product sees it; None outside the rule.
        note: What a reader should know.
    """

    node: NodeProto
    weight: ConstantValue
    axis: int | None
    note: str = ""


def weight_uses(graph: GraphProto, opsets: dict[str, int], outer: OnnxWeights | None = None) -> Iterator[WeightUse]:
    """Every product with a constant weight of at least two axes, in graph order, subgraphs included.

    Raises:
        LayoutError: Weights are stored as sparse tensors.
    """
    weights = OnnxWeights(graph, opsets, outer)
    for node in graph.node:
        for subgraph in subgraphs(node):
            yield from weight_uses(subgraph, opsets, weights)
        if any(output in weights for output in node.output):
            continue  # a product of constants is part of a weight, not a layer
        for index, axis, note in _operands(node):
            weight = weights.follow(node.input[index]) if index < len(node.input) else None
            if weight is not None and weight.may_be_matrix:
                rank = 0 if weight.values is None else weight.values.ndim
                yield WeightUse(node, weight, axis % rank if rank and axis is not None else None, note)


def model_uses(model: ModelProto) -> Iterator[WeightUse]:
    """`weight_uses` of a model's graph.

    Raises:
        LayoutError: As there.
    """
    return weight_uses(model.graph, {entry.domain: entry.version for entry in model.opset_import})


def product_name(use: WeightUse) -> str:
    """What a product's layer is called where nothing else names it: as its weight, without `.weight`.

    Exporters that transpose weights leave them under a number, such as `onnx::MatMul_7`; the node's name tells more.
    """
    anonymous = _NUMBERED.fullmatch(use.weight.name) and use.node.name
    return use.node.name if anonymous else layer_name(use.weight.name) or use.node.name


def _operands(node: NodeProto) -> list[tuple[int, int | None, str]]:
    """(input index, reduction axis or None, note) of the inputs that may be weights."""
    attributes = {a.name: a.i for a in node.attribute}
    if node.domain not in STANDARD_DOMAINS:
        if not _PRODUCT_LIKE.search(node.op_type):
            return []
        note = f"{node.op_type} of {node.domain}: its weight layout is private; check the file this one was made from"
        return [(i, None, note) for i in range(len(node.input))]
    if note := _OUTSIDE_THE_RULE.get(node.op_type, ""):
        return [(i, None, note) for i in range(len(node.input))]
    if node.op_type == "Conv":
        groups = attributes.get("group", 1)
        return [(1, 1, f"grouped convolution ({groups} groups)" if groups > 1 else "")]
    if node.op_type == "Gemm":
        return [(0, 0 if attributes.get("transA") else 1, ""), (1, 1 if attributes.get("transB") else 0, "")]
    if node.op_type == "MatMul":
        return [(0, -1, ""), (1, -2, "")]
    return []
