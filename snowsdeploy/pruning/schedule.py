"""Which layers are solved together, in which order, and where each window ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch.fx import Node

from snowsdeploy.models.graph import operation_kind
from snowsdeploy.models.program_graph import Layer, ProgramGraph


@dataclass(frozen=True)
class Unit:
    """Layers that are solved as one problem, in graph order.

    Attributes:
        layers: What is solved.
        until: Node where the window must reach; None leaves it to the horizon.
    """

    layers: tuple[Layer, ...]
    until: Node | None

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights."""
        return tuple(layer.weight for layer in self.layers)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(layer.name for layer in self.layers)


def block_end(graph: ProgramGraph, weight: str) -> Node | None:
    """The residual sum that the layer's output first flows into, None when there is none that all its calls reach."""
    calls = graph.layers[weight].calls
    after = set.intersection(*(graph.reached_from(call) for call in calls))
    last = graph.order[calls[-1]]
    ends = (n for n in graph.nodes[last + 1 :] if n in after and operation_kind(n, graph.image_values) == "sum")
    return next(ends, None)


def make_schedule(
    graph: ProgramGraph, weights: Sequence[str], *, joint: bool, layers: int = 1, walls: Collection[Node] = ()
) -> tuple[Unit, ...]:
    """Front to back: one layer a unit, or all layers of a residual block.

    Args:
        graph: The program's graph.
        weights: Names of the pruned weights in graph order.
        joint: Solve the layers that flow into the same residual sum together.
        layers: Put consecutive blocks into one unit until it has at least so many layers; a residual block that the
            unit does not flow into, as in parallel branches, begins another.
        walls: Nodes through which nothing is differentiated: layers on both sides of one are in units of their own.
    """
    ends = {w: block_end(graph, w) for w in weights}
    if not joint:
        return tuple(Unit((graph.layers[w],), ends[w]) for w in weights)
    units: list[tuple[str, ...]] = []
    for _, group in groupby(weights, key=lambda w: ends[w] or w):  # without a sum each layer is a block of its own
        names = tuple(group)
        if units and len(units[-1]) < layers and _reach(graph, units[-1], ends[names[0]]):
            units[-1] += names
        else:
            units.append(names)
    parts = [part for unit in units for part in _between(graph, unit, walls)]
    return tuple(Unit(tuple(graph.layers[w] for w in part), ends[part[-1]]) for part in parts)


def _between(graph: ProgramGraph, weights: Sequence[str], walls: Collection[Node]) -> list[tuple[str, ...]]:
    """Consecutive layers with no wall from one to another."""
    parts: list[tuple[str, ...]] = []
    behind: set[Node] = set()  # what depends on a wall behind the part's layers
    for weight in weights:
        calls = graph.layers[weight].calls
        if not parts or any(call in behind for call in calls):
            parts.append((weight,))
            behind = set()
        else:
            parts[-1] += (weight,)
        met = (wall for wall in walls if any(wall in graph.reached_from(call) for call in calls))
        behind = behind.union(*(graph.reached_from(wall) for wall in met))
    return parts


def _reach(graph: ProgramGraph, weights: Sequence[str], end: Node | None) -> bool:
    """Whether all calls of some weights flow into a node; a horizon that is counted has no such node."""
    return end is None or all(end in graph.reached_from(call) for w in weights for call in graph.layers[w].calls)
