"""What a run holds in memory: measured on one image and on two, before anything is solved.

One image runs through the dense model, and every value's bytes are what they are; a window is differentiated on one
image and on two, and the difference is what an image costs. The rest is arithmetic: what lives at a unit's first layer,
and what its least squares keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.batch import Batch, joined
from snowsdeploy.models.graph import evaluate, layer_input
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.gram import gram_matrix
from snowsdeploy.pruning.flow.windows import Window
from snowsdeploy.pruning.forecast.footprint import growth, peak_bytes
from snowsdeploy.pruning.importance.loss import ProgramLoss
from snowsdeploy.pruning.importance.sensitivity import output_curvature
from snowsdeploy.pruning.prune import Plan, differentiable, metric_nodes
from snowsdeploy.pruning.schedule import Unit
from snowsdeploy.pruning.solve.final import final_window
from snowsdeploy.pruning.solve.objective import Sample, Support, WindowObjective
from snowsdeploy.pruning.solve.reconstruct import Reconstruction
from snowsdeploy.selectors.base import AbstractLossSelector
from snowsdeploy.solver.least_squares import KEPT_BYTES, WORK_BYTES
from snowsdeploy.values.memory import UnitMemory

_VECTORS = 10  # of the kept coordinates: gradient, conjugate gradients, line search, weights in their shape


@dataclass(frozen=True)
class Needs:
    """Bytes.

    Attributes:
        units: Of every solve, in order; of the final pass last.
        whole_per_image: Of the whole model's graph for its output's curvature; 0 where none is held.
        loss_per_image: The same for the loss of a selector.
    """

    units: Sequence[UnitMemory]
    whole_per_image: int = 0
    loss_per_image: int = 0


def measure_needs(
    graph: ProgramGraph, weights: Sequence[str], pattern: Pattern, plan: Plan, image: Batch, *, curvature: bool
) -> Needs:
    """Measure what a plan needs; windows of the same shapes are measured once.

    Args:
        graph: The dense program's graph.
        weights: Names of the weights to prune, in graph order.
        pattern: Of the masks.
        plan: What is solved.
        image: `[1, C, H, W]`, on the device.
        curvature: Whether the curvature of the model's output is estimated.
    """
    plan = differentiable(plan, graph, image)
    units = plan.units(graph, weights)
    plan = plan.without_hindered(graph, units)[0]
    state, nodes = graph.state_values(), metric_nodes(graph, units)
    found = plan.method.derivatives
    whole = (
        growth(lambda images: output_curvature(graph, state, [images], nodes, derivatives=found), image)
        if curvature
        else 0
    )
    for_loss = 0
    if isinstance(plan.selection.selector, AbstractLossSelector):
        dense = {name: graph.program.state_dict[name].detach() for name in weights}
        for_loss = growth(
            lambda images: ProgramLoss(graph, state, [images], None, names=weights).curvature(dense, passes=2), image
        )
    return Needs(_unit_needs(graph, units, pattern, plan, image), whole, for_loss)


def _unit_needs(
    graph: ProgramGraph, units: Sequence[Unit], pattern: Pattern, plan: Plan, image: Batch
) -> list[UnitMemory]:
    sizes = measure_sizes(graph, image)
    pair = [image, joined([image, image])]
    stream = Activations(graph, pair, graph.state_values())
    known: dict[object, int] = {}
    kept, trials = pattern.share, 2 if plan.method.targets == "auto" else 1
    found = []
    for unit in units:
        window = plan.method.window(graph, unit)
        stream.advance(window.calls[0])
        if window.signature not in known:
            known[window.signature] = window_bytes(graph, window, stream, plan.method)
        found.append(unit_memory(graph, sizes, unit, window, known[window.signature], kept=kept, trials=trials))
    if plan.final:
        window = final_window(graph, units, plan.final)
        stream = Activations(graph, pair, graph.state_values())
        stream.advance(window.calls[0])
        everything = Unit(tuple(layer for unit in units for layer in unit.layers), None)
        per_image = window_bytes(graph, window, stream, plan.final)
        found.append(unit_memory(graph, sizes, everything, window, per_image, kept=kept, together=True))
    return found


@dataclass(frozen=True)
class Sizes:
    """Bytes of every value of the graph for one image, and of the model's tensors."""

    values: Mapping[Node, int]
    state: int

    def sum(self, nodes: Sequence[Node]) -> int:
        """Bytes of some values together, for one image."""
        return sum(self.values.get(node, 0) for node in nodes)


def measure_sizes(graph: ProgramGraph, image: Batch) -> Sizes:
    """Run one image through the dense model and look at every value.

    Args:
        graph: The program's graph.
        image: `[1, C, H, W]`.
    """
    state = graph.state_values()
    values: dict[Node, Any] = {**state, **graph.given(image)}
    sizes: dict[Node, int] = {node: _bytes(tensor) for node, tensor in graph.given(image).items()}
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
    aside = [n for n in window.live_ins if n in graph.image_values and n not in live and n not in graph.inputs]
    layers = [graph.program.state_dict[name] for name in unit.weights]
    factors = trials * sum(_factor_bytes(weight, kept) for weight in layers)
    work = max(min(WORK_BYTES, 3 * 8 * _squares(weight, kept)) for weight in layers)
    grams = [8 * weight[0].numel() ** 2 for weight in layers]
    moments = 6 * max(grams)  # X^T X, ridged, its factor, inverse, a mask's
    if together:
        moments += sum(grams)
    vectors = _VECTORS * sum(weight.numel() * weight.itemsize for weight in layers)
    return UnitMemory(
        layers=unit.names,
        stored_per_image=2 * sizes.sum(live) + trials * sizes.sum([*window.outputs, *aside]),
        graph_per_image=image_bytes,
        fixed=factors + moments + vectors + work,
    )


def window_bytes(graph: ProgramGraph, window: Window, stream: Activations, method: Reconstruction) -> int:
    """Bytes that a window's gradient, curvature product and moments of inputs hold for each image, at most.

    Args:
        graph: The program's graph.
        window: Of a solve.
        stream: Of two batches, of one image and of two, advanced to the window.
        method: With its curvature, and what operators lack.
    """
    found = method.derivatives
    derived = method.newton is not None and not found.blocking(method.curvature, window.nodes)
    weights = {placeholder: stream.value(placeholder) for placeholder in window.weights}
    support = Support(tuple(torch.ones_like(weight, dtype=torch.bool) for weight in weights.values()))
    start = support.gather(list(weights.values()))

    def peak(batch: int) -> int:
        live_ins = stream.live_ins(batch, window.live_ins)
        with torch.no_grad():
            sample = Sample(live_ins, window(weights, live_ins))
        passes = found.products(window)
        objective = WindowObjective(window, support, [sample], None, method.curvature, passes=passes)

        def solve() -> None:
            for call in window.calls:
                gram_matrix([(call, window.intermediate(layer_input(call), weights, live_ins))])
            if derived:
                objective.value_and_gradient(start)
                objective.curvature(start)(start)

        return peak_bytes(solve)

    return max(peak(1) - peak(0), 0)


def _squares(weight: Tensor, kept: float) -> int:
    """Entries of all rows' own systems."""
    return round(len(weight) * (kept * weight[0].numel()) ** 2)


def _factor_bytes(weight: Tensor, kept: float) -> int:
    own = _squares(weight, kept) * weight.itemsize
    return own if own <= KEPT_BYTES else weight[0].numel() ** 2 * weight.itemsize
