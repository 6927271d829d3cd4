"""The memory of a run: planned before it starts, the same when it is resumed, and less where it was not enough."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError

from snowsdeploy.artifacts import MemoryPlan
from snowsdeploy.config import RunConfig
from snowsdeploy.device import memory_left, memory_used, out_of_memory, release_memory
from snowsdeploy.distributed import alone, from_first, rank, share, world
from snowsdeploy.errors import ResourceError
from snowsdeploy.files import write_text_atomic
from snowsdeploy.machine import available_memory, free_disk
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pipeline.prepare import Prepared
from snowsdeploy.pipeline.settings import make_plan
from snowsdeploy.progress import Observer
from snowsdeploy.pruning.flow.storage import Storage
from snowsdeploy.pruning.forecast.budget import Budget, plan_memory
from snowsdeploy.pruning.forecast.needs import measure_needs
from snowsdeploy.pruning.prune import Plan
from snowsdeploy.run_directory import RunDirectory

T = TypeVar("T")

_FILE = "memory.json"
_LESS = "lower --memory or --samples, or solve fewer layers together with --solve-layers 1"
_SHARE = 0.8  # of what is left, when no budget is given: the estimate is not exact, and others run here too


def fit_memory(config: RunConfig, prepared: Prepared, run: RunDirectory, observer: Observer) -> MemoryPlan:
    """Plan where activations are and how many images are looked at at once; a resumed run keeps its plan.

    Args:
        config: With the budget.
        prepared: What is solved.
        run: Its directory, prepared.
        observer: Told the plan.

    Raises:
        UsageError: Nothing fits.
    """
    found = from_first(_first_plan(config, prepared, run, observer) if rank() == 0 else None)
    assert found is not None
    if rank() == 0:
        _write(run, found)
    observer.message(str(found))
    return found


def _first_plan(config: RunConfig, prepared: Prepared, run: RunDirectory, observer: Observer) -> MemoryPlan:
    """The first process plans for all."""
    budget = memory_budget(config, prepared, run.path)
    before = _read(run) if config.resume else None
    if before is None:
        return measure_memory(config, prepared, budget)
    found = before.model_copy(update={"budget_bytes": budget.device})
    if found.peak_bytes > budget.device:
        observer.warn(f"{found}: the interrupted run was planned so, and its solves are kept")
    return found


def measure_memory(config: RunConfig, prepared: Prepared, budget: Budget) -> MemoryPlan:
    """What each unit needs, and what must be given up for it.

    Raises:
        UsageError: Nothing fits.
    """
    graph = ProgramGraph(prepared.program)
    plan = make_plan(config, prepared.count(config.batch_size))
    image = next(iter(prepared.calibration.batches(1))).to(prepared.device)
    own = min(len(prepared.calibration), share(prepared.count(config.batch_size)) * config.batch_size)
    if budget.host is None:  # all images lie there
        budget = replace(budget, used=budget.used + own * image.numel() * image.itemsize)
    curvature = bool(plan.sensitivity) or (config.permutes and config.permute_score == "curvature")
    with alone():
        needs = measure_needs(graph, prepared.weights, prepared.pattern, plan, image, curvature=curvature)
    return plan_memory(
        needs,
        images=own,
        batch=config.batch_size,
        budget=budget,
        storage=None if config.activations == "auto" else config.activations,
    )


def memory_budget(config: RunConfig, prepared: Prepared, folder: Path) -> Budget:
    """What this process may take; processes of one machine share its memory and disk, but not their GPUs."""
    device, several = prepared.device, world()
    used = memory_used(device)
    left = memory_left(device) // (1 if device.type == "cuda" else several)
    given = int(config.memory) if config.memory else used + int(_SHARE * left)
    return Budget(
        device=given,
        used=used,
        host=int(_SHARE * available_memory()) // several if device.type == "cuda" else None,
        disk=free_disk(folder) // several,
    )


def fitted_plan(config: RunConfig, prepared: Prepared, memory: MemoryPlan) -> Plan:
    """What the settings say to solve, with as many images at once as were planned; activations are in memory."""
    fitted = config.model_copy(update={"batch_size": memory.batch_size})
    plan = make_plan(fitted, prepared.count(memory.batch_size))
    return replace(plan, at_once=memory.whole_images, loss_at_once=memory.loss_images)


def within_memory(
    solve: Callable[[MemoryPlan], T], memory: MemoryPlan, run: RunDirectory, device: torch.device, observer: Observer
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
            seen = str(error).splitlines()[0][:160]
        if memory.batch_size == 1:
            raise ResourceError("memory ran out", seen=f"1 image at once on {device}; {seen}", fix=_LESS)
        fewer = {name: max(1, getattr(memory, name) // 2) for name in ("batch_size", "whole_images", "loss_images")}
        before, memory = memory.batch_size, memory.model_copy(update=fewer)
        _write(run, memory)
        if world() > 1:  # the others wait in the middle of a sum
            raise ResourceError(
                "memory ran out in one of several processes",
                seen=f"{before} images at once on {device}; {seen}",
                fix=f"the solves are kept: --resume goes on with {memory.batch_size} images at once, and "
                "torchrun --max-restarts=3 does so by itself",
            )
        gc.collect()  # the failed solve's tensors hang on its traceback
        release_memory(device)
        observer.warn(f"memory ran out with {before} images at once: going on with {memory.batch_size}")


def _write(run: RunDirectory, plan: MemoryPlan) -> None:
    run.layers.mkdir(exist_ok=True)
    write_text_atomic(run.layers / _FILE, plan.model_dump_json(indent=2) + "\n")


def _read(run: RunDirectory) -> MemoryPlan | None:
    try:
        return MemoryPlan.model_validate_json((run.layers / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


@contextmanager
def activation_storage(plan: MemoryPlan, run: RunDirectory) -> Iterator[Storage]:
    """Where the plan wants activations; nothing of it is left afterwards, nor of a run that was killed."""
    own = run.activations / str(rank())
    shutil.rmtree(own, ignore_errors=True)
    try:
        yield Storage(plan.storage, own)
    finally:
        shutil.rmtree(own, ignore_errors=True)
        if run.activations.is_dir() and not any(run.activations.iterdir()):
            run.activations.rmdir()
