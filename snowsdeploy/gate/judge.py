"""Report and policy -> verdict."""

from __future__ import annotations

from collections.abc import Iterator

from snowsdeploy.gate.engine import ENGINE_RULES
from snowsdeploy.gate.regression import COMPARISONS
from snowsdeploy.gate.rules import RULES
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import Report, RuleResult, Variant, Verdict


def judge(report: Report, policy: GatePolicy, baseline: Report | None = None) -> Verdict:
    """Apply every rule; any fail fails, else anything inconclusive is inconclusive.

    Args:
        report: What is judged.
        policy: The limits.
        baseline: An earlier report; without it the relative limits are not applied.
    """
    results = tuple(
        _named(result, variant, report)
        for variant in report.variants
        for result in (*_absolute(variant, report, policy), *_relative(variant, baseline, policy))
    )
    if not results:
        missing = "no precision was measured: run snowsdeploy validate"
        results = (RuleResult(rule="layout", measured="", limit="", verdict="inconclusive", reason=missing),)
    verdicts = {result.verdict for result in results}
    if "fail" in verdicts:
        return Verdict(verdict="fail", rules=results)
    return Verdict(verdict="inconclusive" if "inconclusive" in verdicts else "pass", rules=results)


def _absolute(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    for name, rule in (RULES | ENGINE_RULES).items():
        if name not in policy.off:
            yield from rule(variant, report, policy)


def _relative(variant: Variant, baseline: Report | None, policy: GatePolicy) -> Iterator[RuleResult]:
    if baseline is None:
        return
    before = next((v for v in baseline.variants if v.precision == variant.precision), None)
    if before is None:
        missing = f"the baseline has no {variant.precision}"
        yield RuleResult(rule="baseline", measured="", limit="", verdict="inconclusive", reason=missing)
        return
    for name, rule in COMPARISONS.items():
        if name not in policy.off:
            yield from rule(variant, before, policy)


def _named(result: RuleResult, variant: Variant, report: Report) -> RuleResult:
    """With several precisions a rule says which one it judges."""
    if len(report.variants) == 1:
        return result
    return result.model_copy(update={"rule": f"{result.rule}, {variant.precision}"})
