"""One problem's reconstruction: a unit of layers, or in the final pass all of them.

Gather the window's inputs and targets, find a start, take Newton steps, keep the best.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.artifacts import LayerReport
from snowsdeploy.errors import NumericsError
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.activations import Activations
from snowsdeploy.pruning.objective import Curvature, Sample, Support, WindowObjective
from snowsdeploy.pruning.preconditioner import PreconditionerKind, make_preconditioner
from snowsdeploy.pruning.schedule import Unit
from snowsdeploy.pruning.start import Select, Weights, factor_inputs, least_squares_start
from snowsdeploy.pruning.windows import Window, cut_window
from snowsdeploy.solver.least_squares import MaskedCholesky
from snowsdeploy.solver.newton import NewtonCG, NewtonSolution
from snowsdeploy.solver.result import Outcome

Horizon = int | Literal["block", "model"]
PLAIN_HORIZON = 5
REDUCED_ERROR = 0.02  # relative, of a product in reduced precision: far below what ten iterations leave unsolved


@dataclass(frozen=True)
class Streams:
    """Activations side by side, and what they say of the model's output.

    Attributes:
        dense: Through the dense model.
        pruned: Through the model pruned so far.
        metrics: Node -> diagonal metric of an error there; a node that is not in it has the identity.
        held_back: How many of the last batches the solver does not see.
    """

    dense: Activations
    pruned: Activations
    metrics: Mapping[Node, Tensor]
    held_back: int = 0


@dataclass(frozen=True)
class Reconstruction:
    """How every unit is solved.

    Attributes:
        horizon: K, counted operations after the unit's last layer, each a term (SNOWS, section 3); `block`: the
            residual sum that it flows into; `model`: that sum and the model's output.
        targets: Share of the true dense activations in the targets; the rest is the dense layers on the pruned
            prefix (SNOWS, algorithm 1). `auto` solves with either and keeps what serves the output better.
        newton: The solver; None leaves the exact masked least squares of each layer.
        curvature: Gauss-Newton or the exact Hessian.
        curvature_batches: Batches in a curvature product; None for all.
        preconditioner: Of conjugate gradients.
        free: Vectors inside the window (biases, normalisation scales and shifts) vary too.
        reduced: Precision of Gauss-Newton products, where its error stays below `REDUCED_ERROR`; None for the weights'.
        ridge: Damping of the least squares, relative to the mean of the Gram matrix's diagonal.
    """

    horizon: Horizon
    targets: float | Literal["auto"]
    newton: NewtonCG | None
    curvature: Curvature = "gauss-newton"
    curvature_batches: int | None = None
    preconditioner: PreconditionerKind = "kronecker"
    free: bool = False
    reduced: torch.dtype | None = None
    ridge: float = 1e-3

    def window(self, graph: ProgramGraph, unit: Unit) -> Window:
        """The unit's window; in a part of the model without residual sums, a block is `PLAIN_HORIZON` operations."""
        output = graph.outputs if self.horizon == "model" else ()
        until = unit.until if unit.until is not None and not isinstance(self.horizon, int) else None
        reach = tuple(dict.fromkeys([*([until] if until is not None else []), *output]))
        free = self.free and self.newton is not None
        if reach:
            return cut_window(graph, unit.weights, 0, until=reach, free=free)
        horizon = self.horizon if isinstance(self.horizon, int) else PLAIN_HORIZON
        return cut_window(graph, unit.weights, horizon, free=free)

    def solve(
        self, graph: ProgramGraph, unit: Unit, streams: Streams, select: Select
    ) -> tuple[dict[str, Tensor], LayerReport]:
        """Choose a unit's masks and reconstruct its weights on them; `streams.pruned` has them from then on.

        Args:
            graph: The program's graph.
            unit: The layers.
            streams: Activations, advanced to the unit.
            select: A layer's weight and `X^T X` of its inputs -> boolean mask.

        Returns:
            Solved tensors by name, weights zero outside their mask, and what happened.

        Raises:
            NumericsError: An activation is not finite, or a least-squares system cannot be factored.
        """
        started = time.perf_counter()
        window = self.window(graph, unit)
        for stream in (streams.dense, streams.pruned):
            stream.advance(window.calls[0])
        if self.targets != "auto":
            problem = self._problem(window, unit, streams, select, self.targets)
            solution, choice = self.newton_steps(problem), f"{self.targets:g} dense"
        else:
            solution, problem, choice = self._best_targets(window, unit, streams, select)
        values = problem.objective.support.scatter(solution.newton.value)
        for placeholder, value in zip(window.weights, values, strict=True):
            streams.pruned.set_weight(placeholder, value)
        report = problem.report(unit, window, solution, targets=choice, seconds=time.perf_counter() - started)
        return {graph.state_names[p]: v for p, v in zip(window.weights, values, strict=True)}, report

    def _problem(self, window: Window, unit: Unit, streams: Streams, select: Select, share: float) -> Problem:
        original = {p: streams.dense.value(p) for p in window.weights}
        samples = gather_samples(window, original, streams, share)
        seen = samples[: len(samples) - streams.held_back]
        begin = least_squares_start(window, original, seen, select, ridge=self.ridge, names=unit.weights)
        support = Support((*begin.masks, *_whole(original, window, len(begin.masks))))
        metrics = [streams.metrics.get(n) for n in window.outputs]
        objective = WindowObjective(
            window, support, seen, None, self.curvature, self.curvature_batches, metrics=metrics
        )
        unseen = replace(objective, samples=samples[len(seen) :]) if streams.held_back else None
        masked = support.gather([original[p] for p in window.weights])
        start = support.gather([begin.tensors[p] for p in window.weights])
        loss_masked, loss_warm = objective.value(masked), objective.value(start)
        if not math.isfinite(loss_masked):
            raise NumericsError(
                "the window objective is not finite", seen=", ".join(unit.weights), fix="lower --horizon"
            )
        start = start if loss_warm <= loss_masked else masked
        return Problem(objective, unseen, start, begin.factors, loss_masked, loss_warm)

    def newton_steps(self, problem: Problem) -> Solution:
        """Precondition and solve; the start itself where there is no solver."""
        if self.newton is None:
            loss = min(problem.loss_masked, problem.loss_start)
            return Solution(NewtonSolution(problem.start, loss, loss, 0, 0, Outcome.EXACT), 0.0, 0.0, "")
        started = time.perf_counter()
        apply = make_preconditioner(self.preconditioner, problem.objective, problem.start, problem.factors)
        objective, precision = self._reduced(replace(problem.objective, preconditioner=apply), problem.start)
        flops = objective.product_flops(problem.start)
        newton = self.newton.solve(objective, problem.start, problem.held_back.value if problem.held_back else None)
        return Solution(newton, time.perf_counter() - started, flops, precision)

    def _reduced(self, objective: WindowObjective, x: Tensor) -> tuple[WindowObjective, str]:
        """The objective with products in reduced precision, if one product there is near enough to the exact one."""
        full = str(x.dtype).removeprefix("torch.")
        if self.reduced is None or self.curvature == "hessian":
            return objective, full
        name = str(self.reduced).removeprefix("torch.")
        one = replace(objective, samples=objective.samples[:1], curvature_samples=None)
        exact = one.curvature(x)(x)
        error = float((replace(one, product_dtype=self.reduced).curvature(x)(x) - exact).norm() / exact.norm())
        if not error <= REDUCED_ERROR:
            return objective, f"{full} ({name} errs by {error:.2g})"
        return replace(objective, product_dtype=self.reduced), f"{name} (error {error:.2g})"

    def _best_targets(
        self, window: Window, unit: Unit, streams: Streams, select: Select
    ) -> tuple[Solution, Problem, str]:
        """Solve with dense and with input targets; the rest of the model, still dense, judges on held-back images."""
        trials = []
        for share, name in ((1.0, "dense"), (0.0, "input")):
            problem = self._problem(window, unit, streams, select, share)
            solution = self.newton_steps(problem)
            values = dict(zip(window.weights, problem.objective.support.scatter(solution.newton.value), strict=True))
            trials.append((output_error(streams, values), name, solution, problem))
        (error, name, solution, problem), (other, *_) = sorted(trials, key=lambda t: t[0])
        return solution, problem, f"{name} (output error {error:.3g} against {other:.3g})"


@dataclass(frozen=True)
class Solution:
    """Newton's result and its cost.

    Attributes:
        newton: Where it ended.
        seconds: Wall time of preconditioner, gradients, products and line searches.
        product_flops: Floating-point operations of one curvature product over all its images.
        precision: Of the products, in words.
    """

    newton: NewtonSolution
    seconds: float
    product_flops: float
    precision: str


@dataclass(frozen=True)
class Problem:
    """An objective with its start.

    Attributes:
        objective: On the images that the solver sees.
        held_back: The same on those that it does not see.
        start: First point, `[kept]`.
        factors: Masked Cholesky factors of each layer's inputs.
        loss_masked: Objective with the masks applied and nothing solved.
        loss_start: Objective of the warm start.
    """

    objective: WindowObjective
    held_back: WindowObjective | None
    start: Tensor
    factors: tuple[MaskedCholesky, ...]
    loss_masked: float
    loss_start: float

    def report(self, unit: Unit, window: Window, solution: Solution, *, targets: str, seconds: float) -> LayerReport:
        """What happened, with the objective on held-back images before and after where there are any."""
        newton = solution.newton
        unseen = [self.held_back.value(x) for x in (self.start, newton.value)] if self.held_back else [None, None]
        masks = self.objective.support.masks[: len(unit.weights)]
        return LayerReport(
            layers=tuple(name.removesuffix(".weight") for name in unit.weights),
            operations=window.operations,
            targets=targets,
            kept=sum(int(m.sum()) for m in masks),
            total=sum(m.numel() for m in masks),
            vectors=len(window.weights) - len(unit.weights),
            loss_masked=self.loss_masked,
            loss_initial=self.loss_start,
            loss_final=newton.loss,
            held_back_initial=unseen[0],
            held_back_final=unseen[1],
            newton_steps=newton.steps,
            products=newton.products,
            product_flops=solution.product_flops,
            product_precision=solution.precision,
            newton_seconds=solution.seconds,
            seconds=seconds,
            outcome=newton.outcome.value,
        )


def final_pass(
    graph: ProgramGraph,
    units: Sequence[Unit],
    streams: Streams,
    masks: Mapping[str, Tensor],
    method: Reconstruction,
) -> tuple[dict[str, Tensor], LayerReport]:
    """All kept weights of the model at once, towards the dense residual sums and the dense output.

    The output's term has half of the objective, the units' ends share the other half: the output alone says too
    little about millions of weights.

    Args:
        graph: The program's graph.
        units: All units; their weights are at their solved values in `streams.pruned`.
        streams: Fresh, in front of the first node.
        masks: Boolean mask of each weight.
        method: Its solver, curvature, preconditioner and `free`.

    Raises:
        NumericsError: As `Reconstruction.solve`.
    """
    started = time.perf_counter()
    assert method.newton is not None
    names = tuple(name for unit in units for name in unit.weights)
    ends = dict.fromkeys(unit.until for unit in units if unit.until is not None)
    outputs = graph.outputs
    reach = tuple(dict.fromkeys([*ends, *outputs]))
    window = cut_window(graph, names, 0, until=reach, free=method.free)
    for stream in (streams.dense, streams.pruned):
        stream.advance(window.calls[0])
    original = {p: streams.dense.value(p) for p in window.weights}
    samples = gather_samples(window, original, streams, 1.0)
    seen = samples[: len(samples) - streams.held_back]
    support = Support((*(masks[name] for name in names), *_whole(original, window, len(names))))
    current = {p: streams.pruned.value(p) for p in window.weights}
    inner = len(window.outputs) - len(outputs)
    shares = [0.5 / len(outputs) if n in outputs else 0.5 / inner for n in window.outputs] if inner else ()
    objective = WindowObjective(
        window,
        support,
        seen,
        None,
        method.curvature,
        method.curvature_batches,
        metrics=[streams.metrics.get(n) for n in window.outputs],
        shares=shares,
    )
    unseen = replace(objective, samples=samples[len(seen) :]) if streams.held_back else None
    start = support.gather([current[p] for p in window.weights])
    factors = factor_inputs(window, current, support, seen, ridge=method.ridge, names=names)
    loss = objective.value(start)
    problem = Problem(objective, unseen, start, tuple(factors), loss, loss)
    solution = method.newton_steps(problem)
    unit = Unit(names, None)
    values = support.scatter(solution.newton.value)
    report = problem.report(unit, window, solution, targets="1 dense", seconds=time.perf_counter() - started)
    return {graph.state_names[p]: v for p, v in zip(window.weights, values, strict=True)}, report


def _whole(tensors: Weights, window: Window, layers: int) -> list[Tensor]:
    """Masks that keep every element of the window's vectors."""
    return [torch.ones_like(tensors[p], dtype=torch.bool) for p in window.weights[layers:]]


def gather_samples(window: Window, weights: Weights, streams: Streams, share: float) -> list[Sample]:
    """What flows into the window on the pruned prefix, and what should come out.

    Args:
        window: The window.
        weights: The dense model's tensors for it.
        streams: Activations, advanced to the window.
        share: Of the true dense activations in the targets.
    """
    samples = []
    for batch in range(len(streams.pruned)):
        live = streams.pruned.live_ins(batch, window.live_ins)
        with torch.no_grad():
            dense = window(weights, streams.dense.live_ins(batch, window.live_ins)) if share > 0 else ()
            own = window(weights, live) if share < 1 else ()
        targets = dense or own
        if dense and own:
            targets = tuple(share * d + (1 - share) * o for d, o in zip(dense, own, strict=True))
        samples.append(Sample(live, targets))
    return samples


def output_error(streams: Streams, weights: Weights, *, held_back_only: bool = True) -> float:
    """Relative squared error of the model's output, layers not solved yet being dense.

    Args:
        streams: Activations at one position.
        weights: Tensors that replace those of `streams.pruned`.
        held_back_only: On the batches that no solve sees, or on all.
    """
    error = energy = 0.0
    first = len(streams.pruned) - streams.held_back if held_back_only else 0
    for batch in range(first, len(streams.pruned)):
        for y, t in zip(streams.pruned.finish(batch, weights), streams.dense.finish(batch, {}), strict=True):
            error += float((y - t).double().square().sum())
            energy += float(t.double().square().sum())
    return error / max(energy, torch.finfo(torch.float64).tiny)
