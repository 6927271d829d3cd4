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
from snowsdeploy.distributed import from_first, rank, world
from snowsdeploy.errors import UsageError
from snowsdeploy.files import write_text_atomic
from snowsdeploy.machine import available_memory, free_disk
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pipeline.prepare import Prepared
from snowsdeploy.pipeline.settings import make_plan
from snowsdeploy.progress import Observer
from snowsdeploy.pruning.budget import Budget, measure_sizes, plan_memory, unit_memory, whole_bytes
from snowsdeploy.pruning.schedule import make_schedule
from snowsdeploy.pruning.storage import Storage
from snowsdeploy.run_directory import RunDirectory

T = TypeVar("T")

_FILE = "memory.json"
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
    before = _read(run) if config.resume and rank() == 0 else None
    budget = memory_budget(config, prepared, run.path)
    if before:
        found = before.model_copy(update={"budget_bytes": budget.device})
        if found.peak_bytes > budget.device:
            observer.warn(f"{found}: the interrupted run was planned so, and its solves are kept")
    else:
        found = measure_memory(config, prepared, budget)
    found = from_first(found)
    _write(run, found)
    observer.message(str(found))
    return found


def measure_memory(config: RunConfig, prepared: Prepared, budget: Budget) -> MemoryPlan:
    """What each unit needs, and what must be given up for it.

    Raises:
        UsageError: Nothing fits.
    """
    graph = ProgramGraph(prepared.program)
    plan = make_plan(config, prepared.count(config.batch_size))
    image = next(iter(prepared.calibration.batches(1))).to(prepared.device)
    sizes = measure_sizes(graph, image)
    if budget.host is None:  # all images lie there
        own = -(-len(prepared.calibration) // world()) * image.numel() * image.itemsize
        budget = replace(budget, used=budget.used + own)
    schedule = make_schedule(graph, prepared.weights, joint=plan.joint, layers=plan.layers)
    return plan_memory(
        [unit_memory(graph, sizes, unit, plan.method.window(graph, unit)) for unit in schedule],
        images=-(-len(prepared.calibration) // world()),
        batch=config.batch_size,
        budget=budget,
        storage=None if config.activations == "auto" else config.activations,
        whole_per_image=whole_bytes(graph, sizes),
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


def within_memory(
    solve: Callable[[MemoryPlan], T], memory: MemoryPlan, run: RunDirectory, device: torch.device, observer: Observer
) -> tuple[T, MemoryPlan]:
    """Solve; where an allocation fails, again with half as many images at once. What is solved already is kept.

    Returns:
        The solution, and the plan that it was found under.

    Raises:
        UsageError: One image is too much, or one of several processes has too little.
    """
    while True:
        try:
            return solve(memory), memory
        except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not out_of_memory(error):
                raise
            seen = str(error).splitlines()[0][:160]
        if memory.batch_size == 1 or world() > 1:
            raise UsageError(
                "memory ran out",
                seen=f"{memory.batch_size} images at once on {device}; {seen}",
                fix="lower --batch-size or --memory, or solve fewer layers together with --solve-layers 1",
            )
        gc.collect()  # the failed solve's tensors hang on its traceback
        release_memory(device)
        fewer, whole = memory.batch_size // 2, max(1, memory.whole_images // 2)
        observer.warn(f"memory ran out with {memory.batch_size} images at once: going on with {fewer}")
        memory = memory.model_copy(update={"batch_size": fewer, "whole_images": whole})
        _write(run, memory)


def _write(run: RunDirectory, plan: MemoryPlan) -> None:
    if rank() == 0:
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
