"""Which layers are solved together, in which order, and where each window ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from torch.fx import Node

from snowsdeploy.models.graph import image_dependent, operation_kind
from snowsdeploy.models.program_graph import ProgramGraph


@dataclass(frozen=True)
class Unit:
    """Layers that are solved as one problem, in graph order.

    Attributes:
        weights: Names of the weights.
        until: Node where the window must reach; None leaves it to the horizon.
    """

    weights: tuple[str, ...]
    until: Node | None


def block_end(graph: ProgramGraph, weight: str) -> Node | None:
    """The residual sum that the layer's output first flows into, None when there is none."""
    last = graph.calls[weight][-1]
    after = image_dependent(graph.nodes[graph.order[last] + 1 :], last)
    ends = (n for n in graph.nodes if n in after and operation_kind(n, graph.image_values) == "sum")
    return next(ends, None)


def make_schedule(graph: ProgramGraph, weights: Sequence[str], *, joint: bool, layers: int = 1) -> tuple[Unit, ...]:
    """Front to back: one layer a unit, or all layers of a residual block.

    Args:
        graph: The program's graph.
        weights: Names of the pruned weights in graph order.
        joint: Solve the layers that flow into the same residual sum together.
        layers: Put consecutive residual blocks into one unit until it has at least so many layers.
    """
    ends = {w: block_end(graph, w) for w in weights}
    if not joint:
        return tuple(Unit((w,), ends[w]) for w in weights)
    units: list[tuple[str, ...]] = []
    for _, group in groupby(weights, key=ends.__getitem__):
        if units and len(units[-1]) < layers:
            units[-1] += tuple(group)
        else:
            units.append(tuple(group))
    return tuple(Unit(unit, ends[unit[-1]]) for unit in units)
