"""The memory of a run: planned before it starts, the same when it is resumed, and less where it was not enough."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from snowsdeploy.device import memory_left, memory_used, out_of_memory, release_memory
from snowsdeploy.distributed import alone, from_first, rank, share, world
from snowsdeploy.errors import ResourceError, first_line
from snowsdeploy.machine import available_memory
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.progress import Observer
from snowsdeploy.pruning.forecast.budget import Budget, plan_memory
from snowsdeploy.pruning.forecast.needs import measure_needs
from snowsdeploy.pruning.plan import make_plan
from snowsdeploy.pruning.prepared import Prepared
from snowsdeploy.pruning.prune import Plan
from snowsdeploy.pruning.workspace import Workspace
from snowsdeploy.settings.prune import PruneSettings
from snowsdeploy.settings.resources import ResourceSettings
from snowsdeploy.values import MemoryPlan

T = TypeVar("T")

_LESS = "lower --memory or --samples, or solve fewer layers together with --solve-layers 1"
_SHARE = 0.8  # of what is left, when no budget is given: the estimate is not exact, and others run here too


def fit_memory(
    settings: PruneSettings, resources: ResourceSettings, prepared: Prepared, space: Workspace, observer: Observer
) -> MemoryPlan:
    """Plan where activations are and how many images are looked at at once; a resumed run keeps its plan.

    Args:
        settings: What is solved.
        resources: With the budget.
        prepared: On what.
        space: Where the plan is kept.
        observer: Told the plan.

    Raises:
        UsageError: Nothing fits.
    """
    plan = from_first(_first_plan(settings, resources, prepared, space, observer) if rank() == 0 else None)
    assert plan is not None
    if rank() == 0:
        space.write_plan(plan)
    observer.message(str(plan))
    return plan


def _first_plan(
    settings: PruneSettings, resources: ResourceSettings, prepared: Prepared, space: Workspace, observer: Observer
) -> MemoryPlan:
    """The first process plans for all."""
    budget = memory_budget(resources, prepared, space)
    before = space.read_plan()
    if before is None:
        return measure_memory(settings, resources, prepared, budget)
    plan = before.model_copy(update={"budget_bytes": budget.device})
    if plan.peak_bytes > budget.device:
        observer.warn(f"{plan}: the interrupted run was planned so, and its solves are kept")
    return plan


def measure_memory(
    settings: PruneSettings, resources: ResourceSettings, prepared: Prepared, budget: Budget
) -> MemoryPlan:
    """What each unit needs, and what must be given up for it.

    Raises:
        UsageError: Nothing fits.
    """
    graph = ProgramGraph(prepared.program)
    plan = make_plan(settings, prepared.count(settings.batch_size))
    if (fixed := prepared.program.signature.batch) is not None:
        return _unmeasured(resources, prepared, budget, fixed)
    image = next(iter(prepared.calibration.batches(1))).to(prepared.device)
    own = min(len(prepared.calibration), share(prepared.count(settings.batch_size)) * settings.batch_size)
    if budget.host is None:  # all images lie there
        budget = replace(budget, used=budget.used + own * image.nbytes)
    curvature = bool(plan.sensitivity) or (settings.permutes and settings.permute_score == "curvature")
    with alone():
        needs = measure_needs(graph, prepared.weights, prepared.pattern, plan, image, curvature=curvature)
    return plan_memory(
        needs,
        images=own,
        batch=settings.batch_size,
        budget=budget,
        storage=None if resources.activations == "auto" else resources.activations,
    )


def _unmeasured(resources: ResourceSettings, prepared: Prepared, budget: Budget, batch: int) -> MemoryPlan:
    """Of a model that takes one number of items only: there is no smaller batch to measure on or to go back to."""
    units = len(prepared.weights)
    storage = "memory" if resources.activations == "auto" else resources.activations
    return MemoryPlan(
        budget_bytes=budget.device,
        base_bytes=budget.used,
        storage=storage,
        planned_batch=batch,
        batch_size=batch,
        whole_images=batch,
        loss_images=batch,
        peak_bytes=budget.used,
        disk_bytes=0,
        units=(),
        unit_peaks=(0,) * units,
        measured=False,
    )


def memory_budget(resources: ResourceSettings, prepared: Prepared, space: Workspace) -> Budget:
    """What this process may take; processes of one machine share its memory and disk, but not their GPUs."""
    device, several = prepared.device, world()
    used = memory_used(device)
    left = memory_left(device) // (1 if device.type == "cuda" else several)
    given = int(resources.memory) if resources.memory else used + int(_SHARE * left)
    return Budget(
        device=given,
        used=used,
        host=int(_SHARE * available_memory()) // several if device.type == "cuda" else None,
        disk=space.free_bytes() // several,
    )


def fitted_plan(settings: PruneSettings, prepared: Prepared, memory: MemoryPlan) -> Plan:
    """What the settings say to solve, with as many images at once as were planned; activations are in memory."""
    fitted = settings.model_copy(update={"batch_size": memory.batch_size})
    plan = make_plan(fitted, prepared.count(memory.batch_size))
    return replace(plan, at_once=memory.whole_images, loss_at_once=memory.loss_images)


def within_memory(
    solve: Callable[[MemoryPlan], T], memory: MemoryPlan, space: Workspace, device: torch.device, observer: Observer
) -> tuple[T, MemoryPlan]:
    """Solve; where an allocation fails, again with half as many images at once. What is solved already is kept.

    Returns:
        The solution, and the plan that it was found under.

    Raises:
        ResourceError: One image is too much; or memory ran out in one of several processes, which cannot go on alone.
    """
    while True:
        try:
            return solve(memory), memory
        except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not out_of_memory(error):
                raise
            seen = first_line(error, 160)
        if memory.batch_size == 1 or not memory.measured:
            items = f"{memory.batch_size} image{'s' * (memory.batch_size > 1)} at once"
            raise ResourceError(
                "memory ran out",
                seen=f"{items} on {device}; {seen}",
                allowed="at least one image at once in the memory that is left",
                fix=_LESS,
            )
        fewer = {name: max(1, getattr(memory, name) // 2) for name in ("batch_size", "whole_images", "loss_images")}
        before, memory = memory.batch_size, memory.model_copy(update=fewer)
        space.write_plan(memory)
        if world() > 1:  # the others wait in the middle of a sum
            raise ResourceError(
                "memory ran out in one of several processes",
                seen=f"{before} images at once on {device}; {seen}",
                allowed="as many images at once as fit in every process",
                fix=f"the solves are kept: --resume goes on with {memory.batch_size} images at once, and "
                "torchrun --max-restarts=3 does so by itself",
            )
        gc.collect()  # the failed solve's tensors hang on its traceback
        release_memory(device)
        observer.warn(f"memory ran out with {before} images at once: going on with {memory.batch_size}")
