"""Solved units put back to their dense weights, all others staying pruned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snowsdeploy.artifacts import LayerReport
from snowsdeploy.models.graph import evaluate, image_dependent
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.windows import as_tensor

Outputs = tuple[Tensor, ...]  # of one batch
SINGLE = 6  # layers of a joint solve that are looked at one by one, at most


@dataclass(frozen=True)
class SolvedUnit:
    """Layers that were solved together, and what moved with them.

    Attributes:
        report: Of the solve.
        weights: Names of the pruned weights, in graph order.
        vectors: Names of the other tensors that changed: biases, normalisation parameters and statistics.
    """

    report: LayerReport
    weights: tuple[str, ...]
    vectors: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Layer names as reports have them."""
        return tuple(name.removesuffix(".weight") for name in self.weights)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Everything that is put back."""
        return (*self.weights, *self.vectors)


def solved_units(
    graph: ProgramGraph, solves: Sequence[LayerReport], changed: Mapping[str, Tensor]
) -> tuple[SolvedUnit, ...]:
    """The units of a run that are still pruned.

    A vector was moved last by the last unit in front of it, so it belongs to the last unit from whose first layer its
    first use can be reached.

    Args:
        graph: The program's graph.
        solves: The solves, front to back.
        changed: Tensors that the run changed, by name.
    """
    named = {weight.removesuffix(".weight"): weight for weight in graph.calls}
    weights = [tuple(named[n] for n in solve.layers if n in named and named[n] in changed) for solve in solves]
    pairs = [(solve, names) for solve, names in zip(solves, weights, strict=True) if names]
    owners = _owners(graph, [names for _, names in pairs], changed)
    return tuple(SolvedUnit(s, n, tuple(v for v, u in owners.items() if u == i)) for i, (s, n) in enumerate(pairs))


def _owners(graph: ProgramGraph, units: Sequence[tuple[str, ...]], changed: Mapping[str, Tensor]) -> dict[str, int]:
    pruned = {name for unit in units for name in unit}
    places = {name: node for node, name in graph.state_names.items()}
    firsts = [min((graph.calls[w][0] for w in unit), key=graph.order.__getitem__) for unit in units]
    reached = [image_dependent(graph.nodes[graph.order[first] :], first) for first in firsts]
    owners: dict[str, int] = {}
    for name in changed:
        uses = [user for user in places[name].users if user in graph.order]
        behind = [i for i, nodes in enumerate(reached) if any(use in nodes for use in uses)]
        if name not in pruned and behind:
            owners[name] = behind[-1]
    return owners


def leave_one_out(
    graph: ProgramGraph,
    batches: Sequence[Tensor],
    changed: Mapping[str, Tensor],
    units: Sequence[SolvedUnit],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[SolvedUnit, tuple[str, ...], list[Outputs]]]:
    """The pruned program's outputs with one unit dense, for every unit; then with a single layer of it.

    The pruned activations in front of a unit are kept, so that only what comes after it runs again.

    Args:
        graph: The dense program's graph.
        batches: Images `[batch, C, H, W]`.
        changed: What pruning changed, by name.
        units: From `solved_units`.
        progress: Told `(done, total)` units.

    Yields:
        The unit, the layers that are dense, and the outputs.
    """
    dense = graph.state_values()
    stream = Activations(graph, batches, dense | {graph.placeholder(n): v for n, v in changed.items()})
    ordered = sorted(units, key=lambda unit: graph.order[graph.calls[unit.weights[0]][0]])
    for done, unit in enumerate(ordered):
        stream.advance(min((graph.calls[w][0] for w in unit.weights), key=graph.order.__getitem__))
        alone = [(w,) for w in unit.weights] if 1 < len(unit.weights) <= SINGLE else []
        for names in [unit.tensors, *alone]:
            replaced = {graph.placeholder(n): dense[graph.placeholder(n)] for n in names}
            layers = tuple(n.removesuffix(".weight") for n in names if n in unit.weights)
            yield unit, layers, [stream.finish(batch, replaced) for batch in range(len(batches))]
        progress(done + 1, len(ordered))


def outputs_with(graph: ProgramGraph, batches: Iterable[Tensor], tensors: Mapping[str, Tensor]) -> Iterator[Outputs]:
    """The program's outputs with some tensors replaced, a batch at a time; nothing is kept."""
    state = graph.state_values() | {graph.placeholder(name): value for name, value in tensors.items()}
    for images in batches:
        scope = {**state, graph.image: images}
        with torch.no_grad():
            evaluate(graph.nodes, scope, graph.dead_after.__getitem__)
        yield tuple(as_tensor(scope[node]) for node in graph.outputs)
