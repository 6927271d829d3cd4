"""Which layers' pruning costs most, and the fewest that must stay dense for a policy."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from snowsdeploy.allocate.keep_dense import AccuracyCheck, find_restoration
from snowsdeploy.allocate.layer_costs import measure_costs
from snowsdeploy.allocate.restoration import solved_units
from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import OutputError
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.progress import Observer
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.tasks.evaluate import Judge
from snowsdeploy.values import AccuracyCost, PruneReport

BATCH = 64


def debug_accuracy(
    dense: Program,
    changed: Mapping[str, Tensor],
    report: PruneReport,
    samples: Samples,
    *,
    judge: Judge,
    policy: GatePolicy,
    observer: Observer,
) -> AccuracyCost:
    """Put every unit of a run back to dense, alone, and see how much nearer the outputs come to the dense ones.

    Args:
        dense: The dense program.
        changed: What pruning changed, by name.
        report: Of the pruning.
        samples: Calibration images.
        judge: What the outputs mean.
        policy: Its accuracy rules are what the suggestion must pass, on the same images.
        observer: Told about progress.

    Raises:
        OutputError: Nothing is pruned.
    """
    graph = ProgramGraph(dense)
    units = solved_units(graph, report.solves, changed)
    if not units:
        raise OutputError(
            "nothing in this run is pruned",
            seen=f"0 of {len(report.decisions)} layers",
            allowed="a run with at least one pruned layer",
            fix="prune with a --policy that asks for less, or without --keep-dense-until-gate",
        )
    batches = list(samples.batches(BATCH))
    observer.stage("debug accuracy", f"{len(units)} units, {len(samples)} calibration images")
    costs = measure_costs(graph, changed, units, batches, task=judge.task, observer=observer)
    check = AccuracyCheck(graph, changed, samples, judge, policy, observer)
    return AccuracyCost(
        images=len(samples),
        pruned=costs.pruned,
        units=tuple(sorted((row for _, row in costs.units), key=lambda row: row.cost, reverse=True)),
        single=costs.single,
        suggestion=find_restoration(costs, check, report.decisions),
    )
