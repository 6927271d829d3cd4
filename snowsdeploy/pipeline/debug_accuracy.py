"""`debug accuracy`: which layers' pruning costs most, and the fewest that must stay dense for a policy."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from snowsdeploy.artifacts import AccuracyCost, DataInfo, PruneReport
from snowsdeploy.data.images import ImageSet
from snowsdeploy.data.open import open_images
from snowsdeploy.errors import DataError, OutputError
from snowsdeploy.gate.policy import GatePolicy
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pipeline.keep_dense import AccuracyCheck, find_restoration
from snowsdeploy.pipeline.layer_costs import measure_costs
from snowsdeploy.pipeline.prune import load_run
from snowsdeploy.progress import Observer
from snowsdeploy.pruning.restoration import solved_units
from snowsdeploy.run_directory import RunDirectory

BATCH = 64


def debug_accuracy(folder: Path, items: int | None, policy: GatePolicy, observer: Observer) -> AccuracyCost:
    """Put every unit of a run back to dense, alone, and see how much nearer the outputs come to the dense ones.

    Args:
        folder: A run directory; nothing in it is changed.
        items: How many calibration images; None for all.
        policy: Its accuracy rules are what the suggestion must pass, on the same images.
        observer: Told about progress.

    Raises:
        OutputError: The directory holds no pruning run, or nothing in it is pruned.
        DataError: The calibration images are gone or have changed.
    """
    run = RunDirectory(folder)
    program, _, report = load_run(run)
    changed, graph = load_file(run.weights), ProgramGraph(program)
    units = solved_units(graph, report.solves, changed)
    if not units:
        raise OutputError("nothing in this run is pruned", seen=folder, fix="prune with a policy that asks for less")
    images = _calibration(program, report, items)
    batches = list(images.batches(BATCH))
    observer.stage("debug accuracy", f"{len(units)} units, {len(images)} calibration images")
    costs = measure_costs(graph, changed, units, batches, observer)
    logits = costs.pruned.top1_agreement is not None
    check = AccuracyCheck(graph, changed, images, policy, observer)
    return AccuracyCost(
        measure="kl" if logits else "relative_l2",
        images=len(images),
        pruned=costs.pruned,
        units=tuple(sorted((row for _, row in costs.units), key=lambda row: row.cost, reverse=True)),
        single=costs.single,
        suggestion=find_restoration(costs, check, report.decisions) if logits else None,
    )


def _calibration(program: Program, report: PruneReport, items: int | None) -> ImageSet:
    """The images that were calibrated on, in their order."""
    source = open_images(report.calibration.source, program.preprocessing)
    if source.info.origin != report.calibration.origin:
        raise DataError(
            "the calibration images have changed since the pruning run",
            seen=report.calibration.source,
            fix="put them back, or prune again",
        )
    chosen = report.calibration_items[:items]
    places = {item: place for place, item in enumerate(source.indices)}
    labels = None if source.labels is None else source.labels[[places[item] for item in chosen]]
    info: DataInfo = report.calibration.model_copy(update={"items": len(chosen)})
    return ImageSet(source.read, chosen, labels, info)
