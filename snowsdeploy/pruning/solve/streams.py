"""The dense and the pruned model's activations side by side: where targets come from, and how far apart they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final, overload

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.batch import Batch
from snowsdeploy.distributed import sum_number
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.storage import IN_MEMORY, Storage
from snowsdeploy.pruning.flow.windows import Window
from snowsdeploy.pruning.solve.objective import Sample
from snowsdeploy.pruning.solve.start import Weights


@dataclass(frozen=True)
class Streams:
    """Activations side by side, and what they say of the model's output.

    Attributes:
        dense: Through the dense model.
        pruned: Through the model pruned so far.
        metrics: Node -> diagonal metric of an error there; a node that is not in it has the identity.
        held_back: How many of the last batches the solver does not see.
        storage: Where a window's targets are.
    """

    dense: Activations
    pruned: Activations
    metrics: Mapping[Node, Tensor]
    held_back: int = 0
    storage: Storage = IN_MEMORY


def open_streams(
    graph: ProgramGraph,
    batches: Sequence[Batch],
    dense: Mapping[Node, Tensor],
    pruned: Mapping[Node, Tensor],
    *,
    metrics: Mapping[Node, Tensor],
    held_back: int = 0,
    storage: Storage = IN_MEMORY,
) -> Streams:
    """Both in front of the first node.

    Args:
        graph: The program's graph.
        batches: Images `[batch, C, H, W]`.
        dense: Placeholder -> tensor of the dense model.
        pruned: The same of the model pruned so far.
        metrics: As in `Streams`.
        held_back: As there.
        storage: Where activations and targets are.
    """
    one = Activations(graph, batches, dict(dense), storage, "dense")
    other = Activations(graph, batches, dict(pruned), storage, "pruned")
    return Streams(one, other, metrics, held_back, storage)


@final
class WindowSamples(Sequence[Sample]):
    """A window's samples, each made when it is asked for."""

    def __init__(self, make: Callable[[int], Sample], batches: range) -> None:
        """Of these batches, `make(batch)`."""
        self._make, self._batches = make, batches

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> WindowSamples: ...
    def __getitem__(self, index: int | slice) -> Sample | WindowSamples:
        if isinstance(index, slice):
            return WindowSamples(self._make, self._batches[index])
        return self._make(self._batches[index])


def gather_samples(window: Window, weights: Weights, streams: Streams, share: float) -> WindowSamples:
    """What flows into the window on the pruned prefix, and what should come out.

    Args:
        window: The window.
        weights: The dense model's tensors for it.
        streams: Activations, advanced to the window, and not beyond while the samples are in use.
        share: Of the true dense activations in the targets.
    """

    def make(batch: int) -> Sample:
        live = streams.pruned.live_ins(batch, window.live_ins)
        with torch.no_grad():
            dense = window(weights, streams.dense.live_ins(batch, window.live_ins)) if share > 0 else ()
            own = window(weights, live) if share < 1 else ()
        targets = dense or own
        if dense and own:
            targets = tuple(share * d + (1 - share) * o for d, o in zip(dense, own, strict=True))
        return Sample(live, targets, streams.pruned.items(batch))

    batches = range(len(streams.pruned))
    store = streams.storage.store(f"targets-{share:g}")
    if store is None:
        return WindowSamples(make, batches)
    aside = [n for n in window.live_ins if not streams.pruned.holds(n)]  # of side branches that have not run yet
    for batch in batches:
        sample = make(batch)
        targets = {f"target {k}": target for k, target in enumerate(sample.targets)}
        store.save(batch, targets | {f"aside {k}": sample.live_ins[node] for k, node in enumerate(aside)})

    def load(batch: int) -> Sample:
        stored = store.load(batch)
        live = streams.pruned.live_ins(batch, [n for n in window.live_ins if n not in aside])
        side = {node: stored[f"aside {k}"] for k, node in enumerate(aside)}
        targets = tuple(stored[f"target {k}"] for k in range(len(window.outputs)))
        return Sample(live | side, targets, streams.pruned.items(batch))

    return WindowSamples(load, batches)


def output_error(streams: Streams, weights: Weights, *, held_back_only: bool = True) -> float:
    """Relative squared error of the model's output, layers not solved yet being dense.

    Args:
        streams: Activations at one position.
        weights: Tensors that replace those of `streams.pruned`.
        held_back_only: On the batches that no solve sees, or on all.
    """
    error = energy = 0.0
    first = len(streams.pruned) - streams.held_back if held_back_only else 0
    for batch in range(first, len(streams.pruned)):
        for y, t in zip(streams.pruned.finish(batch, weights), streams.dense.finish(batch, {}), strict=True):
            error += float((y - t).double().square().sum())
            energy += float(t.double().square().sum())
    return sum_number(error) / max(sum_number(energy), torch.finfo(torch.float64).tiny)
