"""The final pass: all kept weights of the model at once, towards the dense model's output."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from snowsdeploy.distributed import sum_number
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.windows import Window, cut_window
from snowsdeploy.pruning.schedule import Unit
from snowsdeploy.pruning.solve.objective import Support, WindowObjective
from snowsdeploy.pruning.solve.problem import Problem, UnitSolution
from snowsdeploy.pruning.solve.reconstruct import Reconstruction, Tell, silent
from snowsdeploy.pruning.solve.start import factor_inputs
from snowsdeploy.pruning.solve.streams import Streams, gather_samples


def final_window(graph: ProgramGraph, units: Sequence[Unit], method: Reconstruction) -> Window:
    """All units' weights, up to their residual sums and the model's outputs, or what can be differentiated of that.

    Args:
        graph: The program's graph.
        units: All units.
        method: With its `free` and what operators lack; `final_hindrance` must have nothing to say of it.
    """
    window = _whole(graph, units, free=method.free)
    return method.derivatives.shortened(graph, window, method.curvature)


def final_hindrance(graph: ProgramGraph, units: Sequence[Unit], method: Reconstruction) -> str:
    """Why there can be no final pass: layers on both sides of what cannot be differentiated; else nothing."""
    whole = _whole(graph, units, free=False)
    window = method.derivatives.shortened(graph, whole, method.curvature)
    blocking = method.derivatives.blocking(method.curvature, whole.nodes)
    behind = any(call in graph.reached_from(node) for node in blocking for call in window.calls)
    if not behind and not method.derivatives.exact_only(graph, window, method.curvature):
        return ""
    return method.derivatives.words(graph, window, whole, method.curvature)


def _whole(graph: ProgramGraph, units: Sequence[Unit], *, free: bool) -> Window:
    ends = (unit.until for unit in units if unit.until is not None)
    reach = tuple(dict.fromkeys([*ends, *graph.real_outputs]))
    return cut_window(graph, [name for unit in units for name in unit.weights], 0, until=reach, free=free)


def final_pass(
    graph: ProgramGraph,
    units: Sequence[Unit],
    streams: Streams,
    masks: Mapping[str, Tensor],
    method: Reconstruction,
    *,
    tell: Tell = silent,
) -> UnitSolution:
    """All kept weights of the model at once, towards the dense residual sums and the dense output.

    The output's term has half of the objective, the units' ends share the other half: the output alone says too
    little about millions of weights.

    Args:
        graph: The program's graph.
        units: All units; their weights are at their solved values in `streams.pruned`.
        streams: Fresh, in front of the first node.
        masks: Boolean mask of each weight.
        method: Its solver, curvature, preconditioner and `free`.
        tell: Told what goes on.

    Raises:
        NumericsError: As `Reconstruction.solve`.
    """
    started = time.perf_counter()
    assert method.newton is not None
    together = Unit(tuple(layer for unit in units for layer in unit.layers), None)
    names = together.weights
    window = final_window(graph, units, method)
    outputs = [n for n in window.outputs if n in graph.outputs]
    for stream in (streams.dense, streams.pruned):
        stream.advance(window.calls[0])
    original = {p: streams.dense.value(p) for p in window.weights}
    samples = gather_samples(window, original, streams, 1.0)
    seen = samples[: len(samples) - streams.held_back]
    support = Support((*(masks[name] for name in names), *window.whole_vectors(original)))
    current = {p: streams.pruned.value(p) for p in window.weights}
    inner = len(window.outputs) - len(outputs)
    mixed = inner and outputs
    shares = [0.5 / len(outputs) if n in outputs else 0.5 / inner for n in window.outputs] if mixed else ()
    objective = WindowObjective(
        window,
        support,
        seen,
        None,
        method.curvature,
        method.curvature_batches,
        metrics=[streams.metrics.get(n) for n in window.outputs],
        shares=shares,
        passes=method.derivatives.products(window),
    )
    unseen = replace(objective, samples=samples[len(seen) :]) if sum_number(streams.held_back) else None
    start = support.gather([current[p] for p in window.weights])
    factors = factor_inputs(window, current, support, seen, ridge=method.ridge, names=names, metrics=streams.metrics)
    loss = objective.value(start)
    problem = Problem(objective, unseen, start, tuple(factors), loss, loss)
    solution = method.newton_steps(problem, tell)
    values = support.scatter(solution.newton.value)
    report = problem.report(together, window, solution, targets="1 dense", seconds=time.perf_counter() - started)
    words = method.derivatives.words(graph, window, _whole(graph, units, free=method.free), method.curvature)
    report = report.model_copy(update={"derivatives": words})
    tensors = {graph.state_names[p]: v for p, v in zip(window.weights, values, strict=True)}
    return UnitSolution(tensors, dict(masks), report)
