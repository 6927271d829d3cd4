"""What every rule gives: how a measured value and its limit become one row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import Outcome, Report, RuleResult, Variant

Rule = Callable[[Variant, Report, GatePolicy], Iterator[RuleResult]]

INSIDE = "the limit lies inside the interval: use more "


def decided(rule: str, measured: str, limit: str, *, passed: bool, reason: str = "") -> RuleResult:
    """A row that passes or fails; the reason is told where it fails."""
    return RuleResult(
        rule=rule, measured=measured, limit=limit, verdict="pass" if passed else "fail", reason="" if passed else reason
    )


def undecided(rule: str, limit: str, reason: str, measured: str = "not measured") -> RuleResult:
    """An inconclusive row, and why."""
    return RuleResult(rule=rule, measured=measured, limit=limit, verdict="inconclusive", reason=reason)


def judge_upper(value: float, low: float, high: float, limit: float, *, strict: bool) -> tuple[Outcome, str]:
    """Judge a quantity that must not exceed a limit, by its interval when strict, else by its point.

    Args:
        value: The point.
        low: Lower end of its interval.
        high: Upper end.
        limit: What it must not exceed.
        strict: Whether the whole interval must be on one side.
    """
    if not all(map(math.isfinite, (value, low, high))):
        return "fail", "the measured value is not a number"
    if high <= limit:
        return "pass", ""
    if low > limit:
        return "fail", ""
    if strict:
        return "inconclusive", f"{INSIDE}images"
    return ("pass" if value <= limit else "fail"), "judged by the point; the limit lies inside the interval"
