"""How much memory a run needs, before anything is spent, and what to give up so that it fits.

Sizes are measured, not derived: one image runs through the dense model, and every value's bytes are what they are. The
rest is arithmetic on the graph: what lives at a unit's first layer, what its window holds while it is differentiated,
and what its least squares keep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.artifacts.memory import MemoryPlan, UnitMemory
from snowsdeploy.errors import UsageError
from snowsdeploy.models.graph import evaluate
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.schedule import Unit
from snowsdeploy.pruning.sensitivity import WHOLE_IMAGES
from snowsdeploy.pruning.storage import StorageKind
from snowsdeploy.pruning.windows import Window
from snowsdeploy.solver.least_squares import KEPT_BYTES, WORK_BYTES

# A differentiated window holds each value, its tangent and its gradient, and what an operator saves or works in.
_GRAPH = 4.0
_WHOLE = 1.2  # without tangents, and views share their memory
_SLACK = 1.1  # allocators keep some of what is freed
_VECTORS = 10  # of the kept coordinates: gradient, conjugate gradients, line search, weights in their shape


@dataclass(frozen=True)
class Sizes:
    """Bytes of every value of the graph for one image, and of the model's tensors."""

    values: Mapping[Node, int]
    state: int

    def sum(self, nodes: Sequence[Node]) -> int:
        """Bytes of some values together, for one image."""
        return sum(self.values.get(node, 0) for node in nodes)


def measure_sizes(graph: ProgramGraph, image: Tensor) -> Sizes:
    """Run one image through the dense model and look at every value.

    Args:
        graph: The program's graph.
        image: `[1, C, H, W]`.
    """
    state = graph.state_values()
    values: dict[Node, Any] = {**state, graph.image: image}
    ends: dict[int, list[Node]] = {}
    for node in graph.nodes:
        ends.setdefault(graph.last_use(node), []).append(node)
    sizes: dict[Node, int] = {graph.image: _bytes(image)}
    for position, node in enumerate(graph.nodes):
        with torch.no_grad():
            evaluate([node], values)
        if node in graph.image_values:
            sizes[node] = _bytes(values[node])
        for dead in ends.get(position, ()):
            values.pop(dead, None)
    return Sizes(sizes, sum(_bytes(tensor) for tensor in state.values()))


def _bytes(value: object) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.itemsize
    if isinstance(value, tuple | list):
        return sum(map(_bytes, value))
    return 0


def live_values(graph: ProgramGraph, position: int) -> list[Node]:
    """What was computed before a position and is read at it or after it."""
    return [n for n in graph.nodes[:position] if n in graph.image_values and graph.last_use(n) >= position]


def unit_memory(graph: ProgramGraph, sizes: Sizes, unit: Unit, window: Window) -> UnitMemory:
    """What one unit's solve holds, split by what it grows with."""
    live = live_values(graph, graph.order[window.calls[0]])
    aside = [n for n in window.live_ins if n in graph.image_values and n not in live and n is not graph.image]
    layers = [graph.program.state_dict[name] for name in unit.weights]
    factors = [_factor_bytes(weight) for weight in layers]
    work = max(min(WORK_BYTES, 4 * 8 * _squares(weight)) for weight in layers)
    moments = max(6 * 8 * weight[0].numel() ** 2 for weight in layers)  # X^T X, ridged, its factor, inverse, a mask's
    vectors = _VECTORS * sum(weight.numel() * weight.itemsize for weight in layers)
    return UnitMemory(
        layers=tuple(name.removesuffix(".weight") for name in unit.weights),
        stored_per_image=2 * sizes.sum(live) + sizes.sum([*window.outputs, *aside]),
        graph_per_image=round(_GRAPH * sizes.sum(window.nodes)),
        fixed=sum(factors) + moments + vectors + work,
    )


def _squares(weight: Tensor) -> int:
    """Entries of all rows' own systems, half of each row being kept."""
    return len(weight) * weight[0].numel() ** 2 // 4


def _factor_bytes(weight: Tensor) -> int:
    own = _squares(weight) * weight.itemsize
    return own if own <= KEPT_BYTES else weight[0].numel() ** 2 * weight.itemsize


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


def whole_bytes(graph: ProgramGraph, sizes: Sizes) -> int:
    """Of one image, the graph of the whole model: each value, what operators save beside it, and gradients."""
    return round(_WHOLE * sizes.sum(graph.nodes))


def plan_memory(
    units: Sequence[UnitMemory],
    *,
    images: int,
    batch: int,
    budget: Budget,
    storage: StorageKind | None = None,
    whole_per_image: int = 0,
) -> MemoryPlan:
    """The least that must be given up: first the size of a batch, then activations in memory.

    Args:
        units: Of every unit.
        images: Calibration images of this process.
        batch: Images a batch, at most.
        budget: What there is.
        storage: Where activations must be; None chooses.
        whole_per_image: The graph of the whole model for one image.

    Raises:
        UsageError: Nothing fits.
    """
    kinds: Sequence[StorageKind] = (storage,) if storage else _kinds(budget)
    stored = images * max(u.stored_per_image for u in units)
    room: dict[StorageKind, float] = {"disk": budget.disk}
    if budget.host is not None:
        room |= {"host": budget.host, "half": 2.0 * budget.host}
    tried = [
        _plan(units, kind, size, images=images, budget=budget)
        for size in _halves(batch)
        for kind in kinds
        if stored <= room.get(kind, math.inf)
    ]
    if not tried:
        raise UsageError(
            "there is too little room for the activations",
            seen=f"--activations {storage}; {room[kinds[0]] / 2**30:.2f} GiB",
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
    room_for = int((budget.device / _SLACK - budget.used) / max(whole_per_image, 1))
    whole = max(1, min(WHOLE_IMAGES, room_for))
    peak = max(fitting[0].peak_bytes, round(_SLACK * (budget.used + whole * whole_per_image)))
    return fitting[0].model_copy(update={"whole_images": whole, "peak_bytes": peak})


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
        peak_bytes=max(peaks),
        disk_bytes=images * max(u.stored_per_image for u in units) if kind == "disk" else 0,
        units=tuple(units),
        unit_peaks=tuple(peaks),
    )
