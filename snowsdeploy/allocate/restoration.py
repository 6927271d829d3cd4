"""Solved units put back to their dense weights, all others staying pruned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snowsdeploy.batch import Batch
from snowsdeploy.models.graph import as_tensor, evaluate, image_dependent
from snowsdeploy.models.program_graph import Layer, ProgramGraph
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.values import LayerReport

Outputs = tuple[Tensor, ...]  # of one batch
SINGLE = 6  # layers of a joint solve that are looked at one by one, at most


@dataclass(frozen=True)
class SolvedUnit:
    """Layers that were solved together, and what moved with them.

    Attributes:
        report: Of the solve.
        solved: The layers that are pruned, in graph order.
        vectors: Names of the other tensors that changed: biases, normalisation parameters and statistics.
    """

    report: LayerReport
    solved: tuple[Layer, ...]
    vectors: tuple[str, ...]

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of their weights."""
        return tuple(layer.weight for layer in self.solved)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layer names as reports have them."""
        return tuple(layer.name for layer in self.solved)

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
    named = {layer.name: layer for layer in graph.layers.values() if layer.weight in changed}
    solved = [tuple(named[name] for name in solve.layers if name in named) for solve in solves]
    pairs = [(solve, layers) for solve, layers in zip(solves, solved, strict=True) if layers]
    owners = _owners(graph, [layers for _, layers in pairs], changed)
    return tuple(SolvedUnit(s, n, tuple(v for v, u in owners.items() if u == i)) for i, (s, n) in enumerate(pairs))


def _owners(graph: ProgramGraph, units: Sequence[tuple[Layer, ...]], changed: Mapping[str, Tensor]) -> dict[str, int]:
    pruned = {layer.weight for unit in units for layer in unit}
    places = {name: node for node, name in graph.state_names.items()}
    firsts = [min((layer.calls[0] for layer in unit), key=graph.order.__getitem__) for unit in units]
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
    batches: Sequence[Batch],
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
    ordered = sorted(units, key=lambda unit: graph.order[unit.solved[0].calls[0]])
    for done, unit in enumerate(ordered):
        stream.advance(min((layer.calls[0] for layer in unit.solved), key=graph.order.__getitem__))
        alone = [(w,) for w in unit.weights] if 1 < len(unit.weights) <= SINGLE else []
        for names in [unit.tensors, *alone]:
            replaced = {graph.placeholder(n): dense[graph.placeholder(n)] for n in names}
            layers = tuple(layer.name for layer in unit.solved if layer.weight in names)
            yield unit, layers, [stream.finish(batch, replaced) for batch in range(len(batches))]
        progress(done + 1, len(ordered))


def outputs_with(graph: ProgramGraph, batches: Iterable[Batch], tensors: Mapping[str, Tensor]) -> Iterator[Outputs]:
    """The program's outputs with some tensors replaced, a batch at a time; nothing is kept."""
    state = graph.state_values() | {graph.placeholder(name): value for name, value in tensors.items()}
    for images in batches:
        scope = {**state, **graph.given(images)}
        with torch.no_grad():
            evaluate(graph.nodes, scope, graph.dead_after.__getitem__)
        yield tuple(as_tensor(scope[node]) for node in graph.outputs)
