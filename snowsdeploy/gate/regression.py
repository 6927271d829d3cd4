"""Rules on a report against an earlier one: pure functions of one precision's measurements in both."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from snowsdeploy.artifacts import LatencySeries, RuleResult, Variant
from snowsdeploy.gate.policy import GatePolicy

Comparison = Callable[[Variant, Variant, GatePolicy], Iterator[RuleResult]]


def top1_regression(new: Variant, old: Variant, policy: GatePolicy) -> Iterator[RuleResult]:
    """Sparse top-1 is not far below the baseline's; both are measured with labels, on the same images."""
    limit = policy.max_top1_regression
    if limit is None:
        return
    text = f"<= {limit:g} points below the baseline"
    a, b = new.accuracy, old.accuracy
    if a is None or b is None or a.sparse_top1 is None or b.sparse_top1 is None:
        yield _inconclusive("top-1 against baseline", text, "top-1 is not in both reports")
    elif a.data.fingerprint != b.data.fingerprint:
        yield _inconclusive("top-1 against baseline", text, "the reports are of different images")
    else:
        drop = 100 * (b.sparse_top1.value - a.sparse_top1.value)
        measured = f"{a.sparse_top1.value:.2%}, was {b.sparse_top1.value:.2%}"
        yield RuleResult(
            rule="top-1 against baseline",
            measured=measured,
            limit=text,
            verdict="pass" if drop <= limit else "fail",
        )


def latency_regression(new: Variant, old: Variant, policy: GatePolicy) -> Iterator[RuleResult]:
    """The sparse median is not far above the baseline's, judged by the intervals of both medians."""
    limit = policy.max_latency_regression
    if limit is None:
        return
    text = f"<= {limit:g} % above the baseline, or {policy.latency_floor_ms:g} ms"
    if new.latency is None or old.latency is None or new.latency.requested != old.latency.requested:
        yield _inconclusive("latency against baseline", text, "latency is not in both reports, on one provider")
        return
    before = {s.batch: s for s in old.latency.series if s.role == "sparse"}
    for series in new.latency.series:
        if series.role == "sparse" and series.batch in before:
            yield _latency(series, before[series.batch], text, policy, limit)


def _latency(new: LatencySeries, old: LatencySeries, text: str, policy: GatePolicy, limit: float) -> RuleResult:
    # The medians are independent, so the ratio's interval from both ends is conservative.
    low, high = new.p50_low_ms / old.p50_high_ms - 1, new.p50_high_ms / old.p50_low_ms - 1
    measured = f"{new.p50_ms / old.p50_ms - 1:+.1%} [{low:+.1%}, {high:+.1%}]"
    small = new.p50_high_ms - old.p50_low_ms <= policy.latency_floor_ms
    name = f"latency against baseline, batch {new.batch}"
    if small or high <= limit / 100:
        return RuleResult(rule=name, measured=measured, limit=text, verdict="pass")
    if low > limit / 100:
        return RuleResult(rule=name, measured=measured, limit=text, verdict="fail")
    return _inconclusive(name, text, "the limit lies inside the interval: use more --latency-runs", measured)


def size_regression(new: Variant, old: Variant, policy: GatePolicy) -> Iterator[RuleResult]:
    """The sparse file has not grown."""
    limit = policy.max_size_regression
    if limit is None:
        return
    growth = new.sparse.size_bytes / old.sparse.size_bytes - 1
    yield RuleResult(
        rule="size against baseline",
        measured=f"{growth:+.1%}",
        limit=f"<= {limit:g} % above the baseline",
        verdict="pass" if growth <= limit / 100 else "fail",
    )


COMPARISONS: tuple[Comparison, ...] = (top1_regression, latency_regression, size_regression)


def _inconclusive(rule: str, limit: str, reason: str, measured: str = "not measured") -> RuleResult:
    return RuleResult(rule=rule, measured=measured, limit=limit, verdict="inconclusive", reason=reason)
