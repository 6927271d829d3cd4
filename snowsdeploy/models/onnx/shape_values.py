"""Which nodes compute with sizes and not with data, so that the constants that they use stay numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from onnx import NodeProto

# Computed on numbers where all of these inputs are sizes or constants, and one of them is a size.
_ALL_INPUTS = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Equal", "Greater", "GreaterOrEqual", "Less"}
    | {"LessOrEqual", "And", "Or", "Xor", "Concat", "Where"}
)
# Computed on numbers where the first input is a size.
_FIRST_INPUT = frozenset(
    {"Cast", "Slice", "Gather", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Identity", "Floor", "Ceil", "Neg"}
    | {"Abs", "Not", "ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin", "ConstantOfShape", "Split"}
)


def sizes_among(nodes: Iterable[NodeProto], constants: Collection[str]) -> set[str]:
    """Names of the values that are computed from tensors' sizes alone.

    Args:
        nodes: In order.
        constants: Names of the constants that are short enough to be sizes.
    """
    sizes: set[str] = set()
    for node in nodes:
        inputs = [name for name in node.input if name]
        if node.op_type in ("Shape", "Size"):
            sizes.update(node.output)
        elif node.op_type in _FIRST_INPUT:
            sizes.update(node.output if inputs and inputs[0] in sizes else ())
        elif node.op_type in _ALL_INPUTS and any(name in sizes for name in inputs):
            sizes.update(node.output if all(name in sizes or name in constants for name in inputs) else ())
    return sizes
