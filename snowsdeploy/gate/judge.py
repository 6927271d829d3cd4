"""Report and policy -> verdict."""

from __future__ import annotations

from snowsdeploy.artifacts import Report, RuleResult, Variant, Verdict
from snowsdeploy.gate.policy import GatePolicy
from snowsdeploy.gate.rules import RULES


def judge(report: Report, policy: GatePolicy) -> Verdict:
    """Apply every rule; any fail fails, else anything inconclusive is inconclusive."""
    results = tuple(
        _named(result, variant, report)
        for variant in report.variants
        for rule in RULES
        for result in rule(variant, report, policy)
    )
    if not results:
        missing = "no precision was measured: run snowsdeploy validate"
        results = (RuleResult(rule="layout", measured="", limit="", verdict="inconclusive", reason=missing),)
    verdicts = {result.verdict for result in results}
    if "fail" in verdicts:
        return Verdict(verdict="fail", rules=results)
    return Verdict(verdict="inconclusive" if "inconclusive" in verdicts else "pass", rules=results)


def _named(result: RuleResult, variant: Variant, report: Report) -> RuleResult:
    """With several precisions a rule says which one it judges."""
    if len(report.variants) == 1:
        return result
    return result.model_copy(update={"rule": f"{result.rule}, {variant.precision}"})
