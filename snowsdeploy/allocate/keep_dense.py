"""The fewest units that must stay dense for the accuracy rules to pass, and a pruning result with them dense.

The order is measured on calibration images: most gain a weight first. How many are needed is decided by the policy's
accuracy rules on the outputs of the programs in FP32. Where no choice can pass, or what would pass leaves too few
weights in the pattern, nothing is put back: the gate then judges what was asked for, and a note says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from snowsdeploy.allocate.fewest import fewest_that_pass
from snowsdeploy.allocate.layer_costs import Costs, measure_costs
from snowsdeploy.allocate.restoration import SolvedUnit, outputs_with, solved_units
from snowsdeploy.batch import Batch
from snowsdeploy.data.samples import Samples
from snowsdeploy.gate.accuracy import judge_accuracy
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.progress import Observer
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.tasks.evaluate import Judge, Run, evaluate
from snowsdeploy.values import Accuracy, LayerDecision, PruneReport, Restoration, RuleResult

REASON = "kept dense to pass the accuracy gate"
BATCH = 100


@dataclass(frozen=True)
class AccuracyCheck:
    """The accuracy rules of a policy on the outputs of a program.

    Attributes:
        graph: The dense program's graph.
        changed: What pruning changed, by name.
        images: Where the rules are judged.
        judge: What the outputs mean, and what else is measured.
        policy: Their limits.
        observer: Told about each set of units that was judged.
    """

    graph: ProgramGraph
    changed: Mapping[str, Tensor]
    images: Samples
    judge: Judge
    policy: GatePolicy
    observer: Observer

    def accuracy(self, restored: Sequence[SolvedUnit]) -> Accuracy:
        """Of the pruned program with some units dense.

        Raises:
            NumericsError: An output is NaN or Inf.
            MetricError: The user's metric fails.
        """
        back = {name for unit in restored for name in unit.tensors}
        tensors = {name: value for name, value in self.changed.items() if name not in back}
        models = {"dense": self._run({}), "sparse": self._run(tensors)}
        found = evaluate(models, "dense", self.images, self.judge, batch_size=BATCH)
        return found.accuracy("sparse", provider="PyTorch")

    def _run(self, tensors: Mapping[str, Tensor]) -> Run:
        return lambda batch: [o.numpy() for o in next(iter(outputs_with(self.graph, [batch], tensors)))]


def find_restoration(costs: Costs, check: AccuracyCheck, decisions: Sequence[LayerDecision]) -> Restoration:
    """The fewest units to keep dense.

    Args:
        costs: The units in the order in which they should be put back.
        check: The rules.
        decisions: Of all layers, for the coverage.

    Raises:
        NumericsError: An output is NaN or Inf.
        MetricError: The user's metric fails.
    """
    units = [unit for unit, _ in costs.units]
    rules: dict[frozenset[int], tuple[RuleResult, ...]] = {}

    def passes(chosen: frozenset[int]) -> bool:
        found = check.accuracy([units[i] for i in chosen])
        rules[chosen] = tuple(judge_accuracy(found, check.policy))
        passed = all(r.verdict == "pass" for r in rules[chosen])
        verdict = "passes" if passed else "fails"
        measured = "; ".join(measured_by(rules[chosen])) or "no rule"
        check.observer.message(f"{len(chosen)} of {len(units)} units dense: {measured}: {verdict}")
        return passed

    found = fewest_that_pass(range(len(units)), passes)
    chosen = tuple(units[i] for i in found or ())
    coverage = coverage_without(decisions, {name for unit in chosen for name in unit.layers})
    enough = (check.policy.min_coverage or 0.0) <= coverage and len(chosen) < len(units)
    result = frozenset(found) if found is not None else frozenset(range(len(units)))
    return Restoration(
        outcome="impossible" if found is None else "passes" if not chosen else "found" if enough else "coverage",
        units=tuple(unit.layers for unit in chosen),
        tried=len(rules),
        coverage=coverage,
        images=check.images.info.source,
        measured=measured_by(rules[result]),
    )


def keep_dense(
    program: Program,
    tensors: Mapping[str, Tensor],
    report: PruneReport,
    *,
    batches: Sequence[Batch],
    evaluation: Samples,
    judge: Judge,
    policy: GatePolicy,
    observer: Observer,
) -> tuple[dict[str, Tensor], PruneReport]:
    """A pruning result with the fewest units dense that let the accuracy rules pass.

    Args:
        program: The dense program.
        tensors: What pruning changed, by name.
        report: Of the pruning.
        batches: Calibration images, `[batch, C, H, W]` each.
        evaluation: What the rules are judged on.
        judge: What the outputs mean.
        policy: Its accuracy rules must pass.
        observer: Told about progress.

    Returns:
        What is still changed, and the report with the new decisions and a note of what was tried.

    Raises:
        NumericsError: An output is NaN or Inf.
        MetricError: The user's metric fails.
    """
    graph = ProgramGraph(program)
    units = solved_units(graph, report.solves, tensors)
    observer.stage("keep dense", f"{len(units)} units, judged on {len(evaluation)} images")
    costs = measure_costs(graph, tensors, units, batches, task=judge.task, observer=observer)
    found = find_restoration(
        costs, AccuracyCheck(graph, tensors, evaluation, judge, policy, observer), report.decisions
    )
    note = restoration_note(found)
    observer.message(note)
    back = {n for u in units if found.outcome == "found" and u.layers in found.units for n in u.tensors}
    update = {"decisions": restored_decisions(report.decisions, found), "notes": (*report.notes, note)}
    return {n: v for n, v in tensors.items() if n not in back}, report.model_copy(update=update)


def coverage_without(decisions: Sequence[LayerDecision], dense: set[str]) -> float:
    """Share of the weights of all convolutions and linear layers that are pruned when some layers are not."""
    sizes = {d.name: math.prod(d.shape) for d in decisions}
    pruned = sum(sizes[d.name] for d in decisions if d.prunable and d.name not in dense)
    return pruned / max(sum(sizes.values()), 1)


def measured_by(rules: Sequence[RuleResult]) -> tuple[str, ...]:
    """What each rule measured, in words."""
    return tuple(f"{rule.rule} {rule.measured} (limit {rule.limit})" for rule in rules)


def restoration_note(found: Restoration) -> str:
    """What was searched and done, a sentence for the report."""
    judged = f"{found.tried} choices were judged on {found.images}"
    slight = "chosen on the evaluation images, so their accuracy is slightly optimistic"
    if found.outcome == "passes":
        return f"kept dense for the gate: nothing, the accuracy rules pass with every layer pruned ({judged})"
    if found.outcome == "found":
        return f"kept dense for the gate: {', '.join(found.layers)}; {judged}; {slight}"
    if found.outcome == "impossible":
        measured = "; ".join(found.measured)
        return (
            f"kept dense for the gate: nothing, since even with all layers dense the rules fail: {measured} ({judged})"
        )
    return (
        f"kept dense for the gate: nothing, since {', '.join(found.layers)} would have to be, which leaves "
        f"{found.coverage:.1%} of the weights in the pattern ({judged})"
    )


def restored_decisions(decisions: Sequence[LayerDecision], found: Restoration) -> tuple[LayerDecision, ...]:
    """The decisions with what stays dense; unchanged unless a choice was found."""
    dense = set(found.layers) if found.outcome == "found" else set()
    return tuple(
        d.model_copy(update={"prunable": False, "reason": REASON}) if d.name in dense else d for d in decisions
    )
