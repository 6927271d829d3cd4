"""One unit's reconstruction: gather its window's inputs and targets, find a start, take Newton steps, keep the best."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from snowsdeploy.device import release_memory
from snowsdeploy.distributed import sum_number
from snowsdeploy.errors import NumericsError
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.derivatives import Derivatives
from snowsdeploy.pruning.flow.windows import Window, cut_window
from snowsdeploy.pruning.schedule import Unit
from snowsdeploy.pruning.solve.objective import Curvature, Support, WindowObjective
from snowsdeploy.pruning.solve.preconditioner import PreconditionerKind, make_preconditioner
from snowsdeploy.pruning.solve.problem import Problem, Solution, UnitSolution
from snowsdeploy.pruning.solve.products import Products
from snowsdeploy.pruning.solve.start import Select, least_squares_start
from snowsdeploy.pruning.solve.streams import Streams, gather_samples, output_error
from snowsdeploy.solver.newton import NewtonCG, NewtonSolution
from snowsdeploy.solver.result import Outcome

Horizon = int | Literal["block", "model"]
PLAIN_HORIZON = 5

Tell = Callable[[str, float], None]


def silent(what: str, share: float) -> None:
    """Told what a solve does and which share of it is finished; does nothing."""


@dataclass(frozen=True)
class Reconstruction:
    """How every unit is solved.

    Attributes:
        horizon: K, counted operations after the unit's last layer, each a term (SNOWS, section 3); `block`: the
            residual sum that it flows into; `model`: that sum and the model's output.
        targets: Share of the true dense activations in the targets; the rest is the dense layers on the pruned
            prefix (SNOWS, algorithm 1). `auto` solves with either and keeps what serves the output better.
        newton: The solver; None leaves the start.
        exact: Start from the exact masked least squares of each layer; else from the mask alone, with the selector's
            own update where it has one.
        curvature: Gauss-Newton or the exact Hessian.
        curvature_batches: Batches in a curvature product; None for all.
        preconditioner: Of conjugate gradients.
        free: Vectors inside the window (biases, normalisation scales and shifts) vary too.
        products: How Gauss-Newton products are computed, where their error stays small.
        ridge: Damping of the least squares, relative to the mean of the Gram matrix's diagonal.
        derivatives: What the graph's operators lack; windows end in front of what cannot be differentiated.
        seed: Of the probes that estimate curvature.
    """

    horizon: Horizon
    targets: float | Literal["auto"]
    newton: NewtonCG | None
    exact: bool = True
    curvature: Curvature = "gauss-newton"
    curvature_batches: int | None = None
    preconditioner: PreconditionerKind = "kronecker"
    free: bool = False
    products: Products = field(default_factory=Products)
    ridge: float = 1e-3
    derivatives: Derivatives = field(default_factory=Derivatives)
    seed: int = 0

    def window(self, graph: ProgramGraph, unit: Unit) -> Window:
        """What of the unit's whole window can be differentiated; all of it where nothing is."""
        window = self.whole_window(graph, unit)
        return window if self.newton is None else self.derivatives.shortened(graph, window, self.curvature)

    def on(self, graph: ProgramGraph, window: Window) -> Reconstruction:
        """Itself, or its exact start alone where a window from `window` has nothing that can be differentiated."""
        if self.newton is None or not self.derivatives.exact_only(graph, window, self.curvature):
            return self
        return replace(self, newton=None)

    def whole_window(self, graph: ProgramGraph, unit: Unit) -> Window:
        """The unit's window; in a part of the model without residual sums, a block is `PLAIN_HORIZON` operations."""
        output = graph.real_outputs if self.horizon == "model" else ()
        until = unit.until if unit.until is not None and not isinstance(self.horizon, int) else None
        reach = tuple(dict.fromkeys([*([until] if until is not None else []), *output]))
        free = self.free and self.newton is not None
        if reach:
            return cut_window(graph, unit.weights, 0, until=reach, free=free)
        horizon = self.horizon if isinstance(self.horizon, int) else PLAIN_HORIZON
        return cut_window(graph, unit.weights, horizon, free=free)

    def solve(
        self, graph: ProgramGraph, unit: Unit, streams: Streams, select: Select, tell: Tell = silent
    ) -> UnitSolution:
        """Choose a unit's masks and reconstruct its weights on them; `streams.pruned` has them from then on.

        Args:
            graph: The program's graph.
            unit: The layers.
            streams: Activations, advanced to the unit.
            select: A layer's name, weight and what computes `X^T X` of its inputs -> mask.
            tell: Told what goes on.

        Raises:
            NumericsError: An activation is not finite, or a least-squares system cannot be factored.
        """
        started = time.perf_counter()
        window = self.window(graph, unit)
        method = self.on(graph, window)
        tell("activations", 0.0)
        for stream in (streams.dense, streams.pruned):
            stream.advance(window.calls[0])
        release_memory(streams.pruned.value(window.weights[0]).device)  # holes that the passes up to here left
        tell("masks and least squares", 0.0)
        if self.targets != "auto":
            problem = method.problem(window, unit, streams, select, self.targets)
            solution, choice = method.newton_steps(problem, tell), f"{self.targets:g} dense"
        else:
            solution, problem, choice = method._best_targets(window, unit, streams, select, tell)
        support = problem.objective.support
        values = support.scatter(solution.newton.value)
        for placeholder, value in zip(window.weights, values, strict=True):
            streams.pruned.set_weight(placeholder, value)
        report = problem.report(unit, window, solution, targets=choice, seconds=time.perf_counter() - started)
        report = report.model_copy(update={"derivatives": self.words(graph, unit, window)})
        tensors = {graph.state_names[p]: v for p, v in zip(window.weights, values, strict=True)}
        return UnitSolution(tensors, dict(zip(unit.weights, support.masks, strict=False)), report)

    def words(self, graph: ProgramGraph, unit: Unit, window: Window) -> str:
        """What the graph's operators lack for a unit, and how its window is solved instead; else nothing."""
        if self.newton is None:
            return ""
        return self.derivatives.words(graph, window, self.whole_window(graph, unit), self.curvature)

    def problem(self, window: Window, unit: Unit, streams: Streams, select: Select, share: float) -> Problem:
        """Masks, the exact start and the objective of a unit; the arguments as in `solve`, and `targets` as a share."""
        original = {p: streams.dense.value(p) for p in window.weights}
        samples = gather_samples(window, original, streams, share)
        seen = samples[: len(samples) - streams.held_back]
        begin = least_squares_start(
            window,
            original,
            seen,
            select,
            ridge=self.ridge,
            names=unit.weights,
            metrics=streams.metrics,
            exact=self.exact,
            keep=self.newton is not None and self.preconditioner in ("cholesky", "kronecker"),
        )
        release_memory(begin.masks[0].device)
        support = Support((*begin.masks, *window.whole_vectors(original)))
        metrics = [streams.metrics.get(n) for n in window.outputs]
        objective = WindowObjective(
            window,
            support,
            seen,
            None,
            self.curvature,
            self.curvature_batches,
            metrics=metrics,
            passes=self.derivatives.products(window),
        )
        unseen = replace(objective, samples=samples[len(seen) :]) if sum_number(streams.held_back) else None
        masked = support.gather([original[p] for p in window.weights])
        start = support.gather([begin.tensors[p] for p in window.weights])
        loss_masked, loss_warm = objective.value(masked), objective.value(start)
        if not math.isfinite(loss_masked):
            raise NumericsError(
                "the error that a solve starts from is not finite",
                seen=f"{loss_masked:g} at {', '.join(unit.weights[:3])}",
                allowed="finite outputs of the layers that follow, up to --horizon",
                fix="lower --horizon, or leave the layer dense with --exclude",
            )
        start = start if loss_warm <= loss_masked or not self.exact else masked
        return Problem(objective, unseen, start, begin.factors, loss_masked, loss_warm)

    def newton_steps(self, problem: Problem, tell: Tell = silent) -> Solution:
        """Precondition and solve; the start itself where there is no solver."""
        if self.newton is None and not self.exact:
            loss = problem.loss_start
            return Solution(NewtonSolution(problem.start, loss, loss, 0, 0, Outcome.UNSOLVED), 0.0, 0.0, "")
        if self.newton is None:
            loss = min(problem.loss_masked, problem.loss_start)
            return Solution(NewtonSolution(problem.start, loss, loss, 0, 0, Outcome.EXACT), 0.0, 0.0, "")
        started = time.perf_counter()
        apply = make_preconditioner(self.preconditioner, problem.objective, problem.start, problem.factors, self.seed)
        objective, precision = self.products.apply(problem.objective.having(preconditioner=apply), problem.start)
        flops = objective.product_flops(problem.start)
        steps = self.newton.max_steps

        def on_step(number: int, loss: float) -> None:
            tell(f"Newton step {number + 1} of {steps}, loss {loss:.3g}", (number + 1) / (steps + 1))

        held_back = problem.held_back.value if problem.held_back else None
        newton = self.damped(self.newton, objective).solve(objective, problem.start, held_back, on_step)
        return Solution(newton, time.perf_counter() - started, flops, precision)

    def damped(self, newton: NewtonCG, objective: WindowObjective) -> NewtonCG:
        """For the images that curvature products leave out, the preconditioner stands in, by their share.

        A sample's curvature is too small along what the sample does not show, and a step there would be too long.
        `kronecker` has seen all inputs; `diagonal` knows the sample alone, and only bounds the step.
        """
        if self.preconditioner not in ("kronecker", "diagonal"):  # the others are not on the curvature's scale
            return newton
        return replace(newton, cg=replace(newton.cg, damping=1 - objective.curvature_share))

    def _best_targets(
        self, window: Window, unit: Unit, streams: Streams, select: Select, tell: Tell
    ) -> tuple[Solution, Problem, str]:
        """Solve with dense and with input targets; the rest of the model, still dense, judges on held-back images."""
        trials = []
        for share, name in ((1.0, "dense"), (0.0, "input")):
            problem = self.problem(window, unit, streams, select, share)
            solution = self.newton_steps(problem, tell)
            values = dict(zip(window.weights, problem.objective.support.scatter(solution.newton.value), strict=True))
            trials.append((output_error(streams, values), name, solution, problem))
        (error, name, solution, problem), (other, *_) = sorted(trials, key=lambda t: t[0])
        return solution, problem, f"{name} (output error {error:.3g} against {other:.3g})"
