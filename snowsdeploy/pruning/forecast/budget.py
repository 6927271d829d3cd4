"""What to give up so that a run fits into the memory that it may have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from snowsdeploy.errors import UsageError
from snowsdeploy.pruning.flow.storage import StorageKind
from snowsdeploy.pruning.forecast.needs import Needs
from snowsdeploy.pruning.importance.loss import LOSS_IMAGES
from snowsdeploy.pruning.importance.sensitivity import WHOLE_IMAGES
from snowsdeploy.values.memory import MemoryPlan, UnitMemory

_SLACK = 1.1  # allocators keep some of what is freed


@dataclass(frozen=True)
class Budget:
    """Bytes that a process may have.

    Attributes:
        device: In all, on the device of the solve.
        used: Of them, what it has before any unit: libraries, the model.
        host: More on the host; None where that is the device.
        disk: Where activations could be written.
    """

    device: int
    used: int
    host: int | None
    disk: int


def plan_memory(
    needs: Needs,
    *,
    images: int,
    batch: int,
    budget: Budget,
    storage: StorageKind | None = None,
) -> MemoryPlan:
    """The least that must be given up: first the size of a batch, then activations in memory.

    Args:
        needs: What was measured.
        images: Calibration images of this process.
        batch: Images a batch, at most.
        budget: What there is.
        storage: Where activations must be; None chooses.

    Raises:
        UsageError: Nothing fits.
    """
    kinds: Sequence[StorageKind] = (storage,) if storage else _kinds(budget)
    stored = images * max(u.stored_per_image for u in needs.units)
    places: dict[StorageKind, float] = {"disk": budget.disk}
    if budget.host is not None:
        # page-locked memory is given in powers of two: at most twice what is asked for
        places |= {"host": budget.host / 2, "half": budget.host}
    tried = [
        _plan(needs.units, kind, size, images=images, budget=budget)
        for size in _halves(batch)
        for kind in kinds
        if stored <= places.get(kind, math.inf)
    ]
    if not tried:
        raise UsageError(
            "there is too little room for the activations",
            seen=f"--activations {storage}; {places[kinds[0]] / 2**30:.2f} GiB",
            allowed=f"at least {stored / 2**30:.2f} GiB",
            fix="leave --activations out, free some space, or use fewer --samples",
        )
    fitting = [plan for plan in tried if plan.peak_bytes <= budget.device]
    if not fitting:
        least = min(tried, key=lambda plan: plan.peak_bytes)
        raise UsageError(
            "--memory is too small for this model",
            seen=f"{budget.device / 2**30:.1f} GiB",
            allowed=f"at least {least.peak_bytes / 2**30:.1f} GiB: batches of {least.batch_size}",
            fix="raise --memory, or solve fewer layers together with --solve-layers 1",
        )
    room = budget.device / _SLACK - budget.used
    whole, for_loss = (
        max(1, min(most, int(room / max(each, 1))))
        for most, each in ((WHOLE_IMAGES, needs.whole_per_image), (LOSS_IMAGES, needs.loss_per_image))
    )
    beside = max(whole * needs.whole_per_image, for_loss * needs.loss_per_image)
    peak = max(fitting[0].peak_bytes, round(_SLACK * (budget.used + beside)))
    return fitting[0].model_copy(update={"whole_images": whole, "loss_images": for_loss, "peak_bytes": peak})


def _kinds(budget: Budget) -> tuple[StorageKind, ...]:
    """In the order in which they cost: exact ones first."""
    if budget.host is None:
        return ("memory", "disk", "half", "recompute")
    return ("memory", "host", "half", "disk", "recompute")


def _halves(batch: int) -> list[int]:
    sizes = [batch]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    return sizes


def _plan(units: Sequence[UnitMemory], kind: StorageKind, size: int, *, images: int, budget: Budget) -> MemoryPlan:
    here = {"memory": 1.0, "host": 1.0, "half": 0.5, "disk": 0.0, "recompute": 0.0}[kind]
    if budget.host is not None and kind in ("host", "half"):
        here = 0.0
    at_hand = 1 if kind == "memory" else 2  # a batch in use, and the one that is read ahead

    def peak(unit: UnitMemory) -> int:
        held = (here * images + at_hand * size) * unit.stored_per_image
        return round(_SLACK * (budget.used + held + size * unit.graph_per_image + unit.fixed))

    peaks = [peak(unit) for unit in units]
    return MemoryPlan(
        budget_bytes=budget.device,
        base_bytes=budget.used,
        storage=kind,
        planned_batch=size,
        batch_size=size,
        whole_images=WHOLE_IMAGES,
        loss_images=LOSS_IMAGES,
        peak_bytes=max(peaks),
        disk_bytes=images * max(u.stored_per_image for u in units) if kind == "disk" else 0,
        units=tuple(units),
        unit_peaks=tuple(peaks),
    )
