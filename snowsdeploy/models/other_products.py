"""Products with a model's weights that are no convolution or linear layer: they stay dense, and are listed with why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.fx import Node

from snowsdeploy.models.graph import LAYERS, base_name
from snowsdeploy.models.program_graph import ProgramGraph

_REASONS = {
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), "transposed convolution"),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), "recurrent layer"),
    **dict.fromkeys(("matmul", "bmm", "mm", "baddbmm", "einsum", "addmm"), "a product outside a linear layer"),
    "bilinear": "bilinear layer",
    "convolution": "convolution in another form",
}


@dataclass(frozen=True)
class OtherProduct:
    """A weight that a product uses.

    Attributes:
        node: The first that multiplies by it.
        name: As reports have it.
        weight: Its name in the state dict.
        shape: Its sizes.
        reason: Why it stays dense.
    """

    node: Node
    name: str
    weight: str
    shape: tuple[int, ...]
    reason: str


def other_products(graph: ProgramGraph) -> Iterator[OtherProduct]:
    """Each weight of two axes or more once, in graph order."""
    seen = set(graph.layers)
    for node in graph.nodes:
        name = base_name(node)
        own = isinstance(getattr(node.target, "namespace", None), str)
        foreign = own and node.target.namespace not in ("aten", "prims")  # type: ignore[union-attr]
        if node not in graph.image_values or name in LAYERS or not (name in _REASONS or foreign):
            continue
        reason = _REASONS.get(name) or f"operator {node.target.namespace}::{name}"  # type: ignore[union-attr]
        for weight, source in _weights(graph, node):
            if weight not in seen:
                seen.add(weight)
                called = graph.program.layer_name(weight)
                yield OtherProduct(node, called, weight, tuple(int(s) for s in source.meta["val"].shape), reason)


def _weights(graph: ProgramGraph, node: Node) -> Iterator[tuple[str, Node]]:
    """Parameters that a node reads, through whatever the graph computes from them alone."""
    frontier, done = [n for n in node.all_input_nodes if n not in graph.image_values], set[Node]()
    while frontier:
        source = frontier.pop(0)
        if source in done:
            continue
        done.add(source)
        name = graph.state_names.get(source)
        value = source.meta.get("val")
        if name is not None and isinstance(value, Tensor) and value.dim() > 1 and value.is_floating_point():
            yield name, source
        frontier.extend(source.all_input_nodes)
