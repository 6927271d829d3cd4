"""What a pruning run will cost on this machine: a few of its products are measured, the rest is arithmetic."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from snowsdeploy.batch import Batch
from snowsdeploy.data.samples import Samples
from snowsdeploy.device import matmul_tf32
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.permutation.groups import find_groups
from snowsdeploy.permutation.search import Search, find_order, group_scores
from snowsdeploy.progress import NullObserver, Observer
from snowsdeploy.pruning.flow.storage import Storage
from snowsdeploy.pruning.forecast.cost import Terms, measure_final, measure_units, timed
from snowsdeploy.pruning.importance.masks import Masks, prepare_masks
from snowsdeploy.pruning.importance.saliency import weight_scores
from snowsdeploy.pruning.memory import fitted_plan, measure_memory, memory_budget
from snowsdeploy.pruning.prepared import Prepared, fitted, prepare
from snowsdeploy.pruning.prune import Plan, differentiable, unit_metrics
from snowsdeploy.pruning.schedule import Unit
from snowsdeploy.pruning.workspace import Workspace
from snowsdeploy.settings.presets import resolve
from snowsdeploy.settings.prune import PruneSettings
from snowsdeploy.settings.resources import ResourceSettings
from snowsdeploy.values import RunPlan, UnitCost


def plan(
    program: Program,
    samples: Samples,
    settings: PruneSettings | None = None,
    resources: ResourceSettings | None = None,
    *,
    model: str = "",
    load_seconds: float = 0.0,
    observer: Observer | None = None,
) -> RunPlan:
    """Predict time, memory and disk of the pruning stage; nothing is written but what is removed again.

    Args:
        program: Dense, on the CPU.
        samples: Calibration images.
        settings: Masks and solver.
        resources: Device and memory.
        model: How the model is called in the result.
        load_seconds: What loading it took, which is part of the stage.
        observer: Told about progress.

    Raises:
        UsageError, DataError, GraphError, NumericsError: As `prune`.
    """
    settings, resources = fitted(resolve(settings or PruneSettings()), program), resources or ResourceSettings()
    with matmul_tf32(False), Workspace.temporary() as space:  # as the run
        prepared = prepare(program, samples, settings, resources)
        return _plan(
            prepared,
            settings,
            resources,
            space,
            model=model,
            load_seconds=load_seconds,
            observer=observer or NullObserver(),
        )


def _plan(
    prepared: Prepared,
    settings: PruneSettings,
    resources: ResourceSettings,
    space: Workspace,
    *,
    model: str,
    load_seconds: float,
    observer: Observer,
) -> RunPlan:
    started = time.perf_counter()
    memory = measure_memory(settings, resources, prepared, memory_budget(resources, prepared, space))
    total = len(prepared.calibration)
    plan = fitted_plan(settings, prepared, memory)
    batches = _two_batches(prepared, memory.batch_size)
    share = total / len(batches[0])
    permute = _permute(settings, prepared, batches, plan, share) if settings.permutes else 0.0
    stages = {"load": load_seconds, "permute": permute}
    graph = ProgramGraph(prepared.program)
    stages["masks"], masks = _masks(graph, prepared, batches, plan, share)
    plan = differentiable(plan, graph, batches[0])
    units = plan.units(graph, prepared.weights)
    plan, _ = plan.without_hindered(graph, units)
    seconds, metrics = timed(lambda: unit_metrics(graph, batches[:1], units, replace(plan, held_back=0)))
    stages["sensitivity"] = seconds * share
    seen_images = total if settings.curvature_samples == "all" else min(settings.curvature_samples, total)
    with tempfile.TemporaryDirectory(prefix="snowsdeploy-plan-") as folder:

        def storage(name: str) -> Storage:
            return Storage(memory.storage, Path(folder, name))

        observer.stage("plan", f"{len(units)} solves")
        costs, forward = measure_units(
            graph,
            batches,
            units,
            plan,
            select=masks.select,
            apart=prepared.pattern if masks.choices is None and prepared.pattern.sparsity is None else None,
            metrics=metrics,
            storage=storage,
            observer=lambda number, unit: observer.message(f"measuring {', '.join(unit.names)}"),
        )
        stages["forward"] = forward * total
        if plan.final:
            final = measure_final(graph, batches, units, plan.final, prepared.pattern, metrics=metrics, storage=storage)
            stages["final"] = final.seconds(total, seen_images)
    rows = tuple(
        _row(unit, units[like], terms, images=(total, seen_images), memory=peak)
        for unit, (terms, like), peak in zip(units, costs, memory.unit_peaks[: len(units)], strict=True)
    )
    state = sum(t.numel() * t.itemsize for t in prepared.program.state_dict.values())
    return RunPlan(
        model=model,
        device=str(prepared.device),
        images=total,
        stages=stages,
        units=rows,
        memory=memory,
        disk_bytes=memory.disk_bytes + 3 * state,  # the program, the solved weights, and each solve's own
        measured_seconds=time.perf_counter() - started,
    )


def _two_batches(prepared: Prepared, size: int) -> list[Batch]:
    """Two batches of the run's size; a single batch is split in half."""
    batches = prepared.batches(size)
    if len(batches) > 1:
        return [batches[0], batches[1]]
    if prepared.program.signature.batch is not None:
        return [batches[0], batches[0]]
    half = max(1, len(batches[0]) // 2)
    return [batches[0][:half], batches[0][half : 2 * half] if len(batches[0]) > 1 else batches[0]]


def _permute(settings: PruneSettings, prepared: Prepared, batches: Sequence[Batch], plan: Plan, share: float) -> float:
    """Scores grow with the images; a search is measured once for each size of a group."""
    graph = ProgramGraph(prepared.program)
    pattern = prepared.pattern
    score, at_once = settings.permute_score, plan.at_once
    scoring, scores = timed(lambda: weight_scores(graph, batches[:1], prepared.weights, score, at_once=at_once))
    known: dict[tuple[int, ...], float] = {}
    seconds = scoring * (1.0 if score == "magnitude" else share)
    for group in find_groups(graph, prepared.weights, pattern.m).groups:
        found = group_scores(group, scores)
        if found.shape not in known:
            known[found.shape], _ = timed(partial(find_order, found, pattern, Search(seed=settings.seed)))
        seconds += known[found.shape]
    return seconds


def _masks(
    graph: ProgramGraph, prepared: Prepared, batches: Sequence[Batch], plan: Plan, share: float
) -> tuple[float, Masks]:
    """Seconds of masks that are chosen before the first solve, and masks to measure solves on."""
    labels = prepared.labels(len(batches[0]))

    def choose(count: int) -> Callable[[], Masks]:
        seen = batches[:count]
        known = None if labels is None else labels[: sum(map(len, seen))]
        return lambda: prepare_masks(
            graph,
            seen,
            known,
            names=prepared.weights,
            pattern=prepared.pattern,
            selection=plan.selection,
            observer=NullObserver(),
            at_once=plan.loss_at_once,
        )

    one, masks = timed(choose(1))
    if not plan.selection.first(prepared.pattern):
        return one, masks
    two, _ = timed(choose(2))
    return one + max(two - one, 0.0) * (share - 1), masks


def _row(unit: Unit, like: Unit, terms: Terms, *, images: tuple[int, int], memory: int) -> UnitCost:
    total, seen = images
    return UnitCost(
        layers=unit.names,
        seconds=terms.seconds(total, seen),
        mask_seconds=terms.masks,
        product_seconds=terms.product * seen,
        products=terms.products,
        memory_bytes=memory,
        like="" if like is unit else like.names[0],
    )
