"""Whether every operator of a file can be imported, told before anything is built."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from snowsdeploy.errors import SourceError
from snowsdeploy.models.onnx.read import STANDARD_DOMAINS
from snowsdeploy.models.onnx.rules import RULES

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
QUANTISED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv"}
    | {"QLinearMatMul", "QAttention", "QGemm", "DynamicQuantizeMatMul", "MatMulNBits"}
)
DATA_DEPENDENT = frozenset({"NonZero", "Unique", "Compress"})


@dataclass(frozen=True)
class _Reason:
    """Why operators are refused, the most telling first."""

    what: str
    allowed: str
    fix: str
    operators: frozenset[str] = frozenset()
    prefix: str = "\0"

    def applies(self, node: NodeProto) -> bool:
        return node.op_type in self.operators or node.op_type.startswith(self.prefix)


_REASONS = (
    _Reason(
        "the ONNX file is quantised",
        "weights and activations in FP32",
        "pass the FP32 model that it was quantised from, and quantise the pruned one again",
        QUANTISED,
        "QLinear",
    ),
    _Reason(
        "the ONNX file has control flow, which has no one graph",
        "one graph without branches and loops",
        "simplify it with constant inputs (onnxsim), or export the model for one fixed path",
        CONTROL_FLOW,
        "Sequence",
    ),
    _Reason(
        "the ONNX file selects boxes by NonMaxSuppression, which has no derivative and no fixed size",
        "outputs before the selection",
        "cut it off: export the model's raw outputs, and judge with a metric of your own that does the selection",
        frozenset({"NonMaxSuppression", "EfficientNMS_TRT", "BatchedNMS_TRT"}),
    ),
    _Reason(
        "the ONNX file has outputs whose size depends on data",
        "values whose sizes follow from those of the inputs",
        "export the part of the model before them, or write them without this operator",
        DATA_DEPENDENT,
    ),
)


def check_operators(model: ModelProto) -> None:
    """Refuse a file with operators that have no rule; every one of them is named.

    Raises:
        SourceError: It has such operators, operators of another domain, or local functions that call each other.
    """
    nodes = list(model.graph.node)
    for reason in _REASONS:
        _refuse([node for node in nodes if reason.applies(node)], reason.what, reason.allowed, reason.fix)
    _refuse(
        [node for node in nodes if node.domain not in STANDARD_DOMAINS],
        "the ONNX file has operators of a custom domain",
        "operators of the domain ai.onnx",
        "export the model with standard operators alone, and without an engine's own optimisations",
    )
    _refuse(
        [node for node in nodes if node.op_type not in RULES and node.op_type != "Constant"],
        "the ONNX file has operators that cannot be imported",
        f"{len(RULES)} operators of the domain ai.onnx, such as Conv, Gemm, MatMul and LayerNormalization",
        "export the model without them, or prune the PyTorch checkpoint that it came from",
    )


def _refuse(nodes: Iterable[NodeProto], what: str, allowed: str, fix: str) -> None:
    groups: dict[str, list[NodeProto]] = {}
    for node in nodes:
        name = node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op_type}"
        groups.setdefault(name, []).append(node)
    if groups:
        seen = ", ".join(f"{name} x{len(group)} (first: {node_name(group[0])})" for name, group in groups.items())
        raise SourceError(what, seen=seen, allowed=allowed, fix=fix)


def node_name(node: NodeProto) -> str:
    """The node's name, or that of its first output."""
    return node.name or next((name for name in node.output if name), "without a name")
