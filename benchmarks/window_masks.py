"""Masks chosen anew by the window's quadratic model after a first solve: does the window know better than the layer?

    SNOWSDEPLOY_DATA=... python -m benchmarks.window_masks --pattern 2:4

After a unit is solved, the gradient of its window's objective in all coordinates, those pruned included, and a model
of its curvature say what other patterns would cost. `kronecker`: each row's block is its output curvature times
`X^T X`, and the exchange selector searches around that model's minimum. `diagonal`: a weight is worth `h w^2` where it
is kept and `g^2 / h` where it is not. The unit is solved again on the new mask and the better of the two solutions
stays. `two steps` spends the same time on a second Newton step. Writes `results/window-masks-MACHINE.json` and `.md`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch

from benchmarks.measure import Row, run
from benchmarks.models import MODELS, RESULTS, enter_data, machine_name, write_rows
from snowsdeploy.files import write_text_atomic
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.pruning.prune import Plan
from snowsdeploy.pruning.schedule import Unit
from snowsdeploy.pruning.solve.objective import Support
from snowsdeploy.pruning.solve.preconditioner import _probe, _raise
from snowsdeploy.pruning.solve.problem import UnitSolution
from snowsdeploy.pruning.solve.reconstruct import Reconstruction, Tell, silent
from snowsdeploy.pruning.solve.start import Select, _moments
from snowsdeploy.pruning.solve.streams import Streams
from snowsdeploy.selectors import select_mask
from snowsdeploy.selectors.exchange import Exchange
from snowsdeploy.selectors.sparsegpt import damped
from snowsdeploy.solver.least_squares import solve_and_factor

MODELS_OF_CURVATURE = ("kronecker", "diagonal")


def main() -> None:
    """Each variant on one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet20")
    parser.add_argument("--pattern", action="append", help="repeatable; 2:4 and 1:4 without")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    out = options.out.resolve() / f"window-masks-{machine_name()}"
    enter_data()
    rows: list[Row] = []
    for pattern in options.pattern or ("2:4", "1:4"):
        settings = {"pattern": pattern, "samples": options.samples, "seed": 0}
        rows.append(run("default", options.model, settings))
        rows.append(run("two steps", options.model, settings | {"newton_steps": 2}))
        for kind in MODELS_OF_CURVATURE:
            change = refining(kind, Pattern.parse(pattern))
            rows.append(run(kind, options.model, settings, change=change))
        write_rows(Path(f"{out}.json"), "python -m benchmarks.window_masks", rows)
    write_text_atomic(Path(f"{out}.md"), table(rows))
    print(table(rows))


def refining(kind: str, pattern: Pattern) -> Callable[[Plan], Plan]:
    """A plan whose units choose their masks a second time."""

    def change(plan: Plan) -> Plan:
        values = {f.name: getattr(plan.method, f.name) for f in fields(Reconstruction)}
        return replace(plan, method=Refining(**values, kind=kind, pattern=pattern))

    return change


@dataclass(frozen=True)
class Refining(Reconstruction):
    """A unit solved, its masks chosen anew by the window's model, and solved again.

    Attributes:
        kind: Of the model's curvature.
        pattern: Of the masks.
    """

    kind: str = "kronecker"
    pattern: Pattern = field(default_factory=lambda: Pattern(2, 4))

    def solve(
        self, graph: ProgramGraph, unit: Unit, streams: Streams, select: Select, tell: Tell = silent
    ) -> UnitSolution:
        """See `Reconstruction`."""
        started, window, count = time.perf_counter(), self.window(graph, unit), len(unit.weights)
        for stream in (streams.dense, streams.pruned):
            stream.advance(window.calls[0])
        assert self.targets != "auto"
        problem = self.problem(window, unit, streams, select, self.targets)
        solution = self.newton_steps(problem, tell)
        objective = problem.objective
        masks, weights = objective.support.masks, objective.support.scatter(solution.newton.value)
        everything = Support(tuple(torch.ones_like(mask) for mask in masks))
        whole = replace(objective, support=everything, preconditioner=None)
        x = everything.gather(weights)
        gradients = everything.scatter(whole.value_and_gradient(x)[1])
        rows, diagonal = _probe(whole, x, 0)
        curvatures = everything.scatter(_raise(diagonal))
        current = dict(zip(window.weights, weights, strict=True))
        chosen, start, factors = [], [], []
        for i, placeholder in enumerate(window.weights[:count]):
            weight, gradient = weights[i], gradients[i]
            gram = _moments(window, placeholder, current, objective.samples, streams.metrics)
            scaled = gradient.flatten(1).double() / rows[i].double().unsqueeze(1)
            target = weight.flatten(1).double() - torch.linalg.solve(damped(gram), scaled.T).T
            if self.kind == "kronecker":
                goal = target.to(weight.dtype).view(weight.shape)
                mask = select_mask(Exchange(), goal, lambda gram=gram: gram, self.pattern).mask  # type: ignore[misc]
            else:
                worth = torch.where(masks[i], curvatures[i] * weight.square(), gradient.square() / curvatures[i])
                mask = mask_by_score(worth, self.pattern)
            solved, factor = solve_and_factor(gram, target @ gram, mask.flatten(1), self.ridge, dtype=weight.dtype)
            chosen.append(mask)
            start.append(solved.to(weight.dtype).view(weight.shape))
            factors.append(factor)
        support = Support((*chosen, *masks[count:]))
        first = support.gather([*start, *weights[count:]])
        again = replace(problem, objective=replace(objective, support=support), start=first, factors=tuple(factors))
        other = self.newton_steps(again)
        if other.newton.loss < solution.newton.loss:
            problem, solution = again, other
        values = problem.objective.support.scatter(solution.newton.value)
        for placeholder, value in zip(window.weights, values, strict=True):
            streams.pruned.set_weight(placeholder, value)
        seconds = time.perf_counter() - started
        report = problem.report(unit, window, solution, targets=f"{self.targets:g} dense", seconds=seconds)
        tensors = {graph.state_names[p]: v for p, v in zip(window.weights, values, strict=True)}
        kept = dict(zip(unit.weights, problem.objective.support.masks, strict=False))
        return UnitSolution(tensors, kept, report)


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        f"Dense top-1 {rows[0]['dense_top1']:.2f} %; {rows[0]['images']} calibration images. The objective is the mean",
        "of the units' final losses.",
        "",
        "| pattern | masks | objective | top-1, % | KL, nats | seconds |",
        "|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['settings']['pattern']} | {r['name']} | {r['objective']:.4f} | {r['top1']:.2f} | {r['kl']:.4f} "
        f"| {r['seconds']:.0f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
