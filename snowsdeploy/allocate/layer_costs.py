"""Which units' pruning costs most: each put back alone, measured on calibration images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from snowsdeploy.allocate.restoration import SolvedUnit, leave_one_out, outputs_with
from snowsdeploy.batch import Batch
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.progress import Observer
from snowsdeploy.tasks.base import AbstractTask
from snowsdeploy.tasks.distance import distance
from snowsdeploy.values import Distance, LayerCost


@dataclass(frozen=True)
class Costs:
    """The costs of a run's units.

    Attributes:
        pruned: Distance of the pruned model.
        units: The units with their costs, in the order in which they should be put back: most gain a weight first.
        single: Costs of single layers of small joint solves.
    """

    pruned: Distance
    units: tuple[tuple[SolvedUnit, LayerCost], ...]
    single: tuple[LayerCost, ...]


def measure_costs(
    graph: ProgramGraph,
    changed: Mapping[str, Tensor],
    units: Sequence[SolvedUnit],
    batches: Sequence[Batch],
    *,
    task: AbstractTask,
    observer: Observer,
) -> Costs:
    """Leave one out: a unit dense, all others pruned.

    Args:
        graph: The dense program's graph.
        changed: What pruning changed, by name.
        units: From `solved_units`.
        batches: Calibration images `[batch, C, H, W]`.
        task: What the outputs mean.
        observer: Told about progress.

    Raises:
        NumericsError: An activation is NaN or Inf.
    """
    dense = list(outputs_with(graph, batches, {}))
    pruned = distance(dense, list(outputs_with(graph, batches, changed)), task)
    total = sum(changed[name].numel() for unit in units for name in unit.weights)
    whole: list[tuple[SolvedUnit, LayerCost]] = []
    single: list[LayerCost] = []
    for unit, layers, outputs in leave_one_out(graph, batches, changed, units, observer.advance):
        restored = distance(dense, outputs, task)
        weights = sum(changed[layer.weight].numel() for layer in unit.solved if layer.name in layers)
        cost, share = pruned.value - restored.value, weights / total
        row = LayerCost(
            layers=layers,
            whole=layers == unit.layers,
            restored=restored,
            cost=cost,
            weights=weights,
            share=share,
            cost_per_share=cost / share,
            loss_masked=unit.report.loss_masked,
            loss_final=unit.report.loss_final,
        )
        if row.whole:
            whole.append((unit, row))
        else:
            single.append(row)
    whole.sort(key=lambda pair: pair[1].cost_per_share, reverse=True)
    single.sort(key=lambda row: row.cost, reverse=True)
    return Costs(pruned, tuple(whole), tuple(single))
