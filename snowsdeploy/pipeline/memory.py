"""The memory of a run: planned before it starts, and the same plan again when it is resumed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pydantic import ValidationError
from torch import Tensor

from snowsdeploy.artifacts import MemoryPlan
from snowsdeploy.config import RunConfig
from snowsdeploy.files import write_text_atomic
from snowsdeploy.machine import available_memory, free_disk, resident_memory
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.progress import Observer
from snowsdeploy.pruning.budget import measure_sizes, plan_memory, unit_memory
from snowsdeploy.pruning.prune import Plan
from snowsdeploy.pruning.schedule import make_schedule
from snowsdeploy.pruning.storage import Storage
from snowsdeploy.run_directory import RunDirectory

_FILE = "memory.json"
_SHARE = (
    0.8  # of what the machine has left, when no budget is given: the estimate is not exact, and others run here too
)


def fit_memory(
    config: RunConfig,
    run: RunDirectory,
    program: Program,
    weights: Sequence[str],
    plan: Plan,
    *,
    image: Tensor,
    images: int,
    observer: Observer,
) -> MemoryPlan:
    """Plan where activations are and how many images are looked at at once; a resumed run keeps its plan.

    Args:
        config: With the budget.
        run: Its directory, prepared.
        program: The dense program.
        weights: Names of those that are pruned, in graph order.
        plan: What is solved.
        image: One calibration image, `[1, C, H, W]`.
        images: How many there are.
        observer: Told the plan.

    Raises:
        UsageError: Nothing fits.
    """
    graph = ProgramGraph(program)
    before = _read(run) if config.resume else None
    resident = resident_memory()
    budget = int(config.memory) if config.memory else resident + int(_SHARE * available_memory())
    if before:
        found = before.model_copy(update={"budget_bytes": budget})
        if found.peak_bytes > budget:
            observer.warn(f"{found}: the interrupted run was planned so, and its solves are kept")
    else:
        sizes = measure_sizes(graph, image)
        schedule = make_schedule(graph, weights, joint=plan.joint, layers=plan.layers)
        found = plan_memory(
            [unit_memory(graph, sizes, unit, plan.method.window(graph, unit)) for unit in schedule],
            images=images,
            batch=config.batch_size,
            budget=budget,
            base=resident + sizes.state,
            disk=free_disk(run.path),
            storage=None if config.activations == "auto" else config.activations,
        )
        run.layers.mkdir(exist_ok=True)
        write_text_atomic(run.layers / _FILE, found.model_dump_json(indent=2) + "\n")
    observer.message(str(found))
    return found


def _read(run: RunDirectory) -> MemoryPlan | None:
    try:
        return MemoryPlan.model_validate_json((run.layers / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


@contextmanager
def activation_storage(plan: MemoryPlan, run: RunDirectory) -> Iterator[Storage]:
    """Where the plan wants activations; nothing of it is left afterwards, nor of a run that was killed."""
    shutil.rmtree(run.activations, ignore_errors=True)
    if plan.storage == "disk":
        run.activations.mkdir()
    try:
        yield Storage(plan.storage, run.activations)
    finally:
        shutil.rmtree(run.activations, ignore_errors=True)
