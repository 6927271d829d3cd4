"""Report and policy -> verdict."""

from __future__ import annotations

from snowsdeploy.artifacts import Report, Verdict
from snowsdeploy.gate.policy import GatePolicy
from snowsdeploy.gate.rules import RULES


def judge(report: Report, policy: GatePolicy) -> Verdict:
    """Apply every rule; any fail fails, else anything inconclusive is inconclusive."""
    results = tuple(result for rule in RULES for result in rule(report, policy))
    verdicts = {result.verdict for result in results}
    if "fail" in verdicts:
        return Verdict(verdict="fail", rules=results)
    return Verdict(verdict="inconclusive" if "inconclusive" in verdicts else "pass", rules=results)
