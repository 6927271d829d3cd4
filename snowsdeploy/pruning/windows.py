"""Windows: slices of the graph from some layers to the K-th counted operation after them, as pure functions.

SNOWS reconstructs `f^{l:l+k}`, the network from layer l to its next k operations (Lucas & Mazumder 2025, section 3).
Here f is cut out of the ATen graph, so residual branches, attention and modules used twice need no special case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from snowsdeploy.models.graph import evaluate, image_dependent, operation_kind
from snowsdeploy.models.program_graph import ProgramGraph


@dataclass(frozen=True)
class Window:
    """A pure function `(weights, live_ins) -> (y_0 ... y_K)`.

    Attributes:
        weights: Placeholders of the weights that vary.
        calls: Layer nodes that use them, in graph order.
        live_ins: Values computed outside the window, on which it depends.
        nodes: The window's nodes in topological order.
        outputs: y_0 ... y_K: the layers' own outputs, then the counted operations.
    """

    weights: tuple[Node, ...]
    calls: tuple[Node, ...]
    live_ins: tuple[Node, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Node, ...]

    def __call__(self, weights: Mapping[Node, Tensor], live_ins: Mapping[Node, Any]) -> tuple[Tensor, ...]:
        """Evaluate the window; differentiable in the weights, forward and reverse.

        Args:
            weights: A tensor for each of `weights`.
            live_ins: A value for each of `live_ins`.

        Returns:
            One tensor an output.
        """
        values = {**live_ins, **weights}
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has neither forward-mode nor second derivatives
            evaluate(self.nodes, values)
        return tuple(_tensor(values[node]) for node in self.outputs)

    def intermediate(self, node: Node, weights: Mapping[Node, Tensor], live_ins: Mapping[Node, Any]) -> Tensor:
        """One value inside the window, or one that flows into it."""
        values = {**live_ins, **weights}
        if node not in values:
            needed = _ancestors([node], set(self.nodes))
            evaluate([n for n in self.nodes if n in needed], values)
        return _tensor(values[node])

    @property
    def operations(self) -> int:
        """K: counted operations after the layers."""
        return len(self.outputs) - len(self.calls)


def cut_window(graph: ProgramGraph, weights: Sequence[str], horizon: int, until: Node | None = None) -> Window:
    """Slice the graph.

    Args:
        graph: The program's graph.
        weights: Names of the weights that vary together.
        horizon: K, counted operations after the last call of any of the weights; 0 is the layers' own output.
        until: Stop at this node instead, whatever it counts; it must depend on the weights.

    Returns:
        The smallest window that holds those operations.
    """
    calls = sorted((n for w in weights for n in graph.calls[w]), key=graph.order.__getitem__)
    inside = _descendants(graph, calls)
    last = graph.order[calls[-1]]
    outputs, after = list(calls), 0
    for node in graph.nodes:
        if node not in inside or node in calls or operation_kind(node, graph.image_values) is None:
            continue
        if until is None and graph.order[node] > last:
            if after == horizon:
                break
            after += 1
        elif until is not None and graph.order[node] > graph.order[until]:
            break
        if horizon or until is not None:
            outputs.append(node)
    outputs.sort(key=graph.order.__getitem__)
    nodes = tuple(sorted(_ancestors(outputs, inside), key=graph.order.__getitem__))
    members = set(nodes)
    placeholders = {graph.placeholder(w) for w in weights}
    live = {p for n in nodes for p in n.all_input_nodes if p not in members and p not in placeholders}
    return Window(
        weights=tuple(graph.placeholder(w) for w in weights),
        calls=tuple(calls),
        live_ins=tuple(sorted(live, key=lambda n: graph.order.get(n, -1))),
        nodes=nodes,
        outputs=tuple(outputs),
    )


def _descendants(graph: ProgramGraph, calls: Sequence[Node]) -> set[Node]:
    """The calls and every node whose value depends on theirs; sizes do not."""
    found: set[Node] = set(calls)
    for call in calls:
        found |= image_dependent(graph.nodes[graph.order[call] + 1 :], call)
    return found


def _ancestors(nodes: Sequence[Node], inside: set[Node]) -> set[Node]:
    """The nodes of `inside` that some nodes depend on, those included."""
    found: set[Node] = set()
    frontier = list(nodes)
    while frontier:
        node = frontier.pop()
        if node in inside and node not in found:
            found.add(node)
            frontier.extend(node.all_input_nodes)
    return found


def _tensor(value: Any) -> Tensor:  # noqa: ANN401 - a normalisation returns a tuple whose first item is its output
    result = value if isinstance(value, Tensor) else value[0]
    assert isinstance(result, torch.Tensor)
    return result
