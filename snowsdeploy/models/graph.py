"""Reading an ATen graph: which values depend on the image, which nodes are layers, activations, norms, sums."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import Node

LAYERS = {"conv1d": "conv", "conv2d": "conv", "conv3d": "conv", "linear": "linear"}
Kind = Literal["conv", "linear", "activation", "norm", "attention", "sum"]

# Base names of ATen operators that count as one operation of a window (SNOWS, section 3: "the next K operations").
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose2d"), "conv"),
    **dict.fromkeys(("linear", "addmm", "mm"), "linear"),
    **dict.fromkeys(
        [
            "relu",
            "relu6",
            "gelu",
            "silu",
            "hardswish",
            "hardsigmoid",
            "hardtanh",
            "sigmoid",
            "tanh",
            "leaky_relu",
            "prelu",
            "_prelu_kernel",
            "elu",
            "celu",
            "selu",
            "mish",
            "softplus",
            "log_sigmoid",
            "glu",
        ],
        "activation",
    ),
    **dict.fromkeys(
        [
            "_native_batch_norm_legit_no_training",
            "batch_norm",
            "native_batch_norm",
            "layer_norm",
            "native_layer_norm",
            "group_norm",
            "native_group_norm",
            "rms_norm",
            "instance_norm",
        ],
        "norm",
    ),
    **dict.fromkeys(("softmax", "_softmax", "scaled_dot_product_attention"), "attention"),
}


def base_name(node: Node) -> str:
    """`aten.conv2d.default` -> `conv2d`; empty for anything that is not an ATen operator."""
    target = node.target
    return target._schema.name.split("::")[-1] if isinstance(target, torch._ops.OpOverload) else ""


def operation_kind(node: Node, image_values: set[Node]) -> Kind | None:
    """What a node counts as, None when it only moves data.

    Args:
        node: Any node of the graph.
        image_values: The nodes that carry image data; a sum counts when both of its terms do.
    """
    if node not in image_values:
        return None
    name = base_name(node)
    if name == "add" and sum(isinstance(a, Node) and a in image_values for a in node.args[:2]) == 2:
        return "sum"
    return _KINDS.get(name)


def image_dependent(nodes: Iterable[Node], *sources: Node) -> set[Node]:
    """The nodes whose value depends on that of some (sizes do not count), those included."""
    found = set(sources)
    for node in nodes:
        if base_name(node) != "sym_size" and any(parent in found for parent in node.all_input_nodes):
            found.add(node)
    return found


def weight_argument(node: Node) -> Node | None:
    """The node that gives a convolution or linear layer its weight."""
    argument = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
    return argument if isinstance(argument, Node) else None


def layer_input(call: Node) -> Node:
    """The node that a convolution or linear layer reads."""
    source = call.args[0]
    assert isinstance(source, Node)
    return source


def argument(node: Node, index: int, name: str, default: Any) -> Any:  # noqa: ANN401 - ATen arguments are of any type
    """An operator's argument by position or name, else its default."""
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def evaluate(
    nodes: Iterable[Node], values: dict[Node, Any], last_use: Callable[[Node], Iterable[Node]] | None = None
) -> None:
    """Run call nodes in order, adding each result to `values`.

    Args:
        nodes: Nodes in topological order; placeholders must be in `values` already.
        values: Node -> value, extended in place.
        last_use: Names the values that are not needed after a node; they are dropped.
    """
    for node in nodes:
        arguments = torch.fx.node.map_arg(node.args, values.__getitem__)
        keywords = torch.fx.node.map_arg(node.kwargs, values.__getitem__)
        assert callable(node.target)
        values[node] = _differentiable(node.target)(*arguments, **keywords)
        for dead in last_use(node) if last_use else ():
            values.pop(dead, None)


def _inference_batch_norm(  # noqa: PLR0917 - the operator's own signature
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, momentum: float, eps: float
) -> tuple[Tensor, ...]:
    empty = x.new_empty(0)
    return torch.nn.functional.batch_norm(x, mean, var, weight, bias, False, momentum, eps), empty, empty


# Operators that torch.export emits -> the same mathematics with derivative formulas, and free of assumptions on
# strides, which depend on the kernels that ran before.
_SUBSTITUTES: dict[object, Callable[..., Any]] = {
    torch.ops.aten.view.default: torch.reshape,
    torch.ops.aten._unsafe_view.default: torch.reshape,
    torch.ops.aten._native_batch_norm_legit_no_training.default: _inference_batch_norm,
}


def _differentiable(target: Callable[..., Any]) -> Callable[..., Any]:
    return _SUBSTITUTES.get(target, target)


def line_of(node: Node) -> str:
    """`model.py:17`, the line of the user's model that calls an operator; empty where tracing did not keep it."""
    return last_line(node.meta.get("stack_trace") or "")


def last_line(stack: str) -> str:
    """The same of a stack as text."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', stack)
    own = [f"{file}:{line}" for file, line in frames if "/torch/" not in file]
    return own[-1] if own else ""


def as_tensor(value: Any) -> Tensor:  # noqa: ANN401 - a normalisation returns a tuple whose first item is its output
    """A node's value; of a tuple its first item."""
    result = value if isinstance(value, Tensor) else value[0]
    assert isinstance(result, torch.Tensor)
    return result
