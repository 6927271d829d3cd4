"""Which layers of a program are pruned, and why each other one is not: decided on the graph."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch.fx import Node

from snowsdeploy.errors import UsageError
from snowsdeploy.models.graph import LAYERS, argument, base_name, weight_argument
from snowsdeploy.models.other_products import OtherProduct, other_products
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.values import LayerDecision

STEM_CHANNELS = 4  # so few channels are one group of the pattern: the convolution is memory-bound and never gains


def decide_layers(
    graph: ProgramGraph, pattern: Pattern, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[LayerDecision, ...]:
    """Decide for every convolution and linear layer.

    Args:
        graph: The program's graph.
        pattern: Its `m` must divide the input channels.
        include: Name patterns (`*` and `?`); when given, only matching layers are pruned, and a matching classifier is.
        exclude: Name patterns of layers to keep dense.

    Returns:
        One decision a layer, in graph order.

    Raises:
        UsageError: A pattern matches no layer, or no layer is left to prune.
    """
    names = [layer.name for layer in graph.layers.values()]
    for option, patterns in (("--include", include), ("--exclude", exclude)):
        for text in patterns:
            if not any(fnmatchcase(name, text) for name in names):
                raise UsageError(f"{option} matches no layer", seen=text, allowed=_shorten(names), fix="use * and ?")
    heads, stems = graph.classifiers(), graph.stems()
    rows = []
    for layer in graph.layers.values():
        calls = set(layer.calls)
        reason = _refusal(layer.calls, pattern, reads_input=bool(calls & stems))
        reason = reason or _choice(layer.name, calls & heads, include, exclude)
        rows.append((graph.order[layer.calls[0]], _decision(layer.name, layer.weight, layer.calls, reason)))
    computed = "its weight is computed in the graph"
    rows += [(graph.order[n], _decision(n.name, None, (n,), computed)) for n in graph.unnamed_calls]
    rows += [(graph.order[other.node], _other(other)) for other in other_products(graph)]
    decisions = tuple(decision for _, decision in sorted(rows, key=lambda row: row[0]))
    if not any(d.prunable for d in decisions):
        reasons = sorted({d.reason for d in decisions})
        raise UsageError(
            "no layer of the model can be pruned",
            seen="; ".join(reasons) or "no convolution or linear layer in the graph",
            allowed=f"at least one convolution or linear layer whose weight can hold {pattern}",
            fix="check --include and --exclude, or the model",
        )
    return decisions


def _decision(name: str, weight: str | None, nodes: tuple[Node, ...], reason: str) -> LayerDecision:
    kind = LAYERS[base_name(nodes[0])]
    argument_node = weight_argument(nodes[0])
    shape = tuple(int(s) for s in argument_node.meta["val"].shape) if argument_node is not None else ()
    return LayerDecision(
        name=name,
        weight=weight,
        kind="conv" if kind == "conv" else "linear",
        shape=shape,
        calls=len(nodes),
        prunable=not reason,
        reason=reason,
    )


def _other(found: OtherProduct) -> LayerDecision:
    return LayerDecision(
        name=found.name,
        weight=found.weight,
        kind="other",
        shape=found.shape,
        calls=1,
        prunable=False,
        reason=found.reason,
    )


def _refusal(nodes: tuple[Node, ...], pattern: Pattern, *, reads_input: bool) -> str:
    """Why the hardware or the solver cannot take the layer, empty when they can."""
    node = nodes[0]
    weight = weight_argument(node)
    assert weight is not None
    shape = tuple(weight.meta["val"].shape)
    others = [user for user in weight.users if user not in nodes]
    groups = argument(node, 6, "groups", 1) if base_name(node) != "linear" else 1
    if 1 < groups == shape[0]:
        return "depthwise convolution"
    if groups != 1:
        return f"grouped convolution ({groups} groups)"
    if base_name(node) == "conv3d":
        return "3-D convolution"
    if base_name(node) != "linear" and shape[1] <= STEM_CHANNELS:
        return f"stem ({shape[1]} input channels)" if reads_input else f"only {shape[1]} input channels"
    if shape[1] % pattern.m:
        return f"{shape[1]} input channels, not a multiple of {pattern.m}"
    if others:
        return f"weight also used by {base_name(others[0]) or others[0].name}"
    return ""


def _choice(name: str, head: set[Node], include: Sequence[str], exclude: Sequence[str]) -> str:
    if any(fnmatchcase(name, text) for text in exclude):
        return "excluded by --exclude"
    if include:
        return "" if any(fnmatchcase(name, text) for text in include) else "not in --include"
    return "classifier" if head else ""


def _shorten(names: list[str], limit: int = 6) -> str:
    more = f", +{len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
