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

from snowsdeploy.models.graph import as_tensor, evaluate, operation_kind
from snowsdeploy.models.program_graph import ProgramGraph


@dataclass(frozen=True)
class Window:
    """A pure function `(weights, live_ins) -> (y_0 ... y_K)`.

    Attributes:
        weights: Placeholders of the tensors that vary: the layers' weights, then vectors such as biases.
        calls: Layer nodes that use the weights, in graph order.
        live_ins: Values computed outside the window, on which it depends.
        nodes: The window's nodes in topological order.
        outputs: y_0 ... y_K: the layers' own outputs, then the counted operations; or only the nodes it must reach.
        operations: K, counted operations after the last layer.
    """

    weights: tuple[Node, ...]
    calls: tuple[Node, ...]
    live_ins: tuple[Node, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Node, ...]
    operations: int

    @property
    def signature(self) -> object:
        """What decides its cost: shapes of its layers' weights and outputs, and how far it reaches."""
        calls = tuple((call.target, _shape(call), _shape(call.args[1])) for call in self.calls)
        return calls, len(self.nodes), tuple(map(_shape, self.outputs))

    def __call__(self, weights: Mapping[Node, Tensor], live_ins: Mapping[Node, Any]) -> tuple[Tensor, ...]:
        """Evaluate the window; differentiable in the weights, forward and reverse.

        Args:
            weights: A tensor for each of `weights`.
            live_ins: A value for each of `live_ins`.

        Returns:
            One tensor an output.
        """
        return self.with_calls(weights, live_ins)[0]

    def with_calls(
        self, weights: Mapping[Node, Tensor], live_ins: Mapping[Node, Any]
    ) -> tuple[tuple[Tensor, ...], dict[Node, Tensor]]:
        """The outputs, and what each of `calls` gives on the way."""
        values = {**live_ins, **weights}
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has neither forward-mode nor second derivatives
            evaluate(self.nodes, values)
        return tuple(as_tensor(values[n]) for n in self.outputs), {c: as_tensor(values[c]) for c in self.calls}

    def intermediate(self, node: Node, weights: Mapping[Node, Tensor], live_ins: Mapping[Node, Any]) -> Tensor:
        """One value inside the window, or one that flows into it; no gradients."""
        return self.intermediates([node], weights, live_ins)[node]

    def intermediates(
        self, wanted: Sequence[Node], weights: Mapping[Node, Tensor], live_ins: Mapping[Node, Any]
    ) -> dict[Node, Tensor]:
        """Several values of the window in one evaluation; no gradients."""
        values = {**live_ins, **weights}
        needed = _ancestors([n for n in wanted if n not in values], set(self.nodes))
        with torch.no_grad():
            evaluate([n for n in self.nodes if n in needed], values)
        return {n: as_tensor(values[n]) for n in wanted}

    def whole_vectors(self, tensors: Mapping[Node, Tensor]) -> list[Tensor]:
        """Masks that keep every element of those of `weights` that are no layer's weight."""
        layers = {node for call in self.calls for node in call.all_input_nodes if node.meta["val"].dim() > 1}
        return [torch.ones_like(tensors[p], dtype=torch.bool) for p in self.weights if p not in layers]

    def calls_of(self, weight: Node) -> tuple[Node, ...]:
        """The layer nodes that use a weight."""
        return tuple(c for c in self.calls if weight in c.all_input_nodes)


def cut_window(
    graph: ProgramGraph, weights: Sequence[str], horizon: int, *, until: Sequence[Node] = (), free: bool = False
) -> Window:
    """Slice the graph.

    Args:
        graph: The program's graph.
        weights: Names of the weights that vary together.
        horizon: K, counted operations after the last call of any of the weights; 0 is the layers' own output.
        until: Reach these nodes instead, whatever they count, and have them as the only outputs; those that do not
            depend on the weights are left out.
        free: The vectors inside the window (biases, scales and shifts of normalisations) vary too.

    Returns:
        The smallest window that holds those operations.
    """
    calls = sorted((n for w in weights for n in graph.layers[w].calls), key=graph.order.__getitem__)
    inside = _descendants(graph, calls)
    after = [
        n
        for n in graph.nodes[graph.order[calls[-1]] + 1 :]
        if n in inside and operation_kind(n, graph.image_values) is not None
    ]
    reached = [n for n in until if n in inside]
    if reached:
        outputs = sorted(reached, key=graph.order.__getitem__)
    elif horizon:
        last = after[:horizon][-1] if after else calls[-1]
        outputs = [n for n in _counted(graph, inside, calls) if graph.order[n] <= graph.order[last]]
    else:
        outputs = list(calls)
    nodes = tuple(sorted(_ancestors(outputs, inside), key=graph.order.__getitem__))
    members = set(nodes)
    varying = [graph.placeholder(w) for w in weights]
    read = {p for n in nodes for p in n.all_input_nodes if p not in members}
    if free:
        varying += sorted(_vectors(graph, nodes, read), key=lambda n: n.name)
    return Window(
        weights=tuple(varying),
        calls=tuple(calls),
        live_ins=tuple(sorted(read - set(varying), key=lambda n: graph.order.get(n, -1))),
        nodes=nodes,
        outputs=tuple(outputs),
        operations=sum(n in members for n in after),
    )


def _shape(node: object) -> tuple[int, ...]:
    assert isinstance(node, Node)
    shape = as_tensor(node.meta["val"]).shape
    return tuple(size if isinstance(size, int) else 0 for size in shape)  # the batch is a symbol


def _counted(graph: ProgramGraph, inside: set[Node], calls: Sequence[Node]) -> list[Node]:
    layers = set(calls)
    return [
        n for n in graph.nodes if n in layers or (n in inside and operation_kind(n, graph.image_values) is not None)
    ]


def _vectors(graph: ProgramGraph, nodes: Sequence[Node], read: set[Node]) -> set[Node]:
    """Parameters of one axis that only these nodes use: changing them changes nothing outside."""
    members = set(nodes)
    parameters = graph.program.exported.graph_signature.inputs_to_parameters
    return {
        p
        for p in read
        if p.name in parameters and p.meta["val"].dim() == 1 and all(user in members for user in p.users)
    }


def _descendants(graph: ProgramGraph, calls: Sequence[Node]) -> set[Node]:
    """The calls and every node whose value depends on theirs; sizes do not."""
    return set().union(*(graph.reached_from(call) for call in calls))


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
