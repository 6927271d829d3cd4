"""How much memory a run needs, before anything is spent, and what to give up so that it fits.

Sizes are measured, not derived: one image runs through the dense model, and every value's bytes are what they are; a
window is differentiated on one image and on two, and the difference is what an image costs. The rest is arithmetic:
what lives at a unit's first layer, and what its least squares keep.
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
from snowsdeploy.models.graph import evaluate, layer_input
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.gram import gram_matrix
from snowsdeploy.pruning.flow.storage import StorageKind
from snowsdeploy.pruning.flow.windows import Window
from snowsdeploy.pruning.forecast.footprint import Footprint
from snowsdeploy.pruning.importance.loss import LOSS_IMAGES
from snowsdeploy.pruning.importance.sensitivity import WHOLE_IMAGES
from snowsdeploy.pruning.schedule import Unit
from snowsdeploy.pruning.solve.objective import Curvature, Sample, Support, WindowObjective
from snowsdeploy.solver.least_squares import KEPT_BYTES, WORK_BYTES

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
    sizes: dict[Node, int] = {graph.image: _bytes(image)}
    for node in graph.nodes:
        with torch.no_grad():
            evaluate([node], values)
        if node in graph.image_values:
            sizes[node] = _bytes(values[node])
        for dead in graph.dead_after[node]:
            del values[dead]
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


def unit_memory(
    graph: ProgramGraph,
    sizes: Sizes,
    unit: Unit,
    window: Window,
    image_bytes: int,
    *,
    kept: float,
    trials: int = 1,
    together: bool = False,
) -> UnitMemory:
    """What one unit's solve holds, split by what it grows with.

    Args:
        graph: The program's graph.
        sizes: Of its values.
        unit: The layers.
        window: What is differentiated.
        image_bytes: Of that for an image, from `window_bytes`.
        kept: Share of each row's weights.
        trials: How many problems with targets and factors of their own live together.
        together: X^T X of all layers at once, as in the final pass.
    """
    live = live_values(graph, graph.order[window.calls[0]])
    aside = [n for n in window.live_ins if n in graph.image_values and n not in live and n is not graph.image]
    layers = [graph.program.state_dict[name] for name in unit.weights]
    factors = trials * sum(_factor_bytes(weight, kept) for weight in layers)
    work = max(min(WORK_BYTES, 3 * 8 * _squares(weight, kept)) for weight in layers)
    grams = [8 * weight[0].numel() ** 2 for weight in layers]
    moments = 6 * max(grams)  # X^T X, ridged, its factor, inverse, a mask's
    if together:
        moments += sum(grams)
    vectors = _VECTORS * sum(weight.numel() * weight.itemsize for weight in layers)
    return UnitMemory(
        layers=tuple(name.removesuffix(".weight") for name in unit.weights),
        stored_per_image=2 * sizes.sum(live) + trials * sizes.sum([*window.outputs, *aside]),
        graph_per_image=image_bytes,
        fixed=factors + moments + vectors + work,
    )


def window_bytes(window: Window, stream: Activations, curvature: Curvature) -> int:
    """Bytes that a window's gradient, curvature product and moments of inputs hold for each image, at most.

    Args:
        window: Of a solve.
        stream: Of two batches, of one image and of two, advanced to the window.
        curvature: Of the products.
    """
    weights = {placeholder: stream.value(placeholder) for placeholder in window.weights}
    support = Support(tuple(torch.ones_like(weight, dtype=torch.bool) for weight in weights.values()))
    start = support.gather(list(weights.values()))

    def peak(batch: int) -> int:
        live_ins = stream.live_ins(batch, window.live_ins)
        with torch.no_grad():
            sample = Sample(live_ins, window(weights, live_ins))
        objective = WindowObjective(window, support, [sample], None, curvature)
        footprint = Footprint()
        with footprint:
            for call in window.calls:
                gram_matrix([(call, window.intermediate(layer_input(call), weights, live_ins))])
            objective.value_and_gradient(start)
            objective.curvature(start)(start)
        return footprint.peak

    return max(peak(1) - peak(0), 0)


def _squares(weight: Tensor, kept: float) -> int:
    """Entries of all rows' own systems."""
    return round(len(weight) * (kept * weight[0].numel()) ** 2)


def _factor_bytes(weight: Tensor, kept: float) -> int:
    own = _squares(weight, kept) * weight.itemsize
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


def plan_memory(
    units: Sequence[UnitMemory],
    *,
    images: int,
    batch: int,
    budget: Budget,
    storage: StorageKind | None = None,
    whole_per_image: int = 0,
    loss_per_image: int = 0,
) -> MemoryPlan:
    """The least that must be given up: first the size of a batch, then activations in memory.

    Args:
        units: Of every unit.
        images: Calibration images of this process.
        batch: Images a batch, at most.
        budget: What there is.
        storage: Where activations must be; None chooses.
        whole_per_image: Bytes of the whole model's graph for its output's curvature; 0 where none is held.
        loss_per_image: The same for the loss of a selector.

    Raises:
        UsageError: Nothing fits.
    """
    kinds: Sequence[StorageKind] = (storage,) if storage else _kinds(budget)
    stored = images * max(u.stored_per_image for u in units)
    places: dict[StorageKind, float] = {"disk": budget.disk}
    if budget.host is not None:
        # page-locked memory is given in powers of two: at most twice what is asked for
        places |= {"host": budget.host / 2, "half": budget.host}
    tried = [
        _plan(units, kind, size, images=images, budget=budget)
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
        for most, each in ((WHOLE_IMAGES, whole_per_image), (LOSS_IMAGES, loss_per_image))
    )
    beside = max(whole * whole_per_image, for_loss * loss_per_image)
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
