"""Rules on a report against an earlier one: pure functions of one precision's measurements in both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from snowsdeploy.gate.limits import absent, limit_of, reach_of
from snowsdeploy.gate.results import INSIDE, decided, undecided
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import Latency, LatencySeries, Metric, RuleResult, Variant

_SOURCE = "snowsdeploy.source_sha256"  # in a file's metadata

_Estimate = tuple[float, float, float]  # value, and the ends of its interval
Comparison = Callable[[Variant, Variant, GatePolicy], Iterator[RuleResult]]


def metric_regression(new: Variant, old: Variant, policy: GatePolicy) -> Iterator[RuleResult]:
    """The sparse value of a metric is not far below the baseline's; both are measured on the same items."""
    limits = policy.max_metric_regression
    if limits is None:
        return
    a, b = new.accuracy, old.accuracy
    metrics = () if a is None else a.metrics
    if a is None or b is None or not metrics or not b.metrics:
        text = "its usual limit" if isinstance(limits, dict) else f"<= {limits}"
        yield undecided("accuracy against baseline", text, "no metric is in both reports")
        return
    before = {metric.name: metric for metric in b.metrics}
    names = {metric.name for metric in metrics}
    usual = {m.name: m.usual_regression for m in b.metrics if m.usual_regression is not None}
    wanted = {**usual, **limits} if isinstance(limits, dict) else limits
    for name in sorted(absent(wanted, names)):
        yield undecided(f"{name} against baseline", f"{name}", "the metric is not in the report")
    judged = False
    for place, metric in enumerate(metrics):
        limit = limit_of(limits, metric.name, metric.usual_regression, first=place == 0)
        if limit is not None:
            judged = True
            yield _metric_change(metric, before.get(metric.name), limit)
    if not judged and (not isinstance(limits, dict) or metrics[0].name not in limits):
        name = metrics[0].name
        yield undecided(f"{name} against baseline", "none", f"no limit: name one, max_metric_regression.{name}")


def _metric_change(new: Metric, old: Metric | None, limit: float | str) -> RuleResult:
    name = f"{new.label} against baseline"
    if old is None:
        return undecided(name, f"<= {limit} below the baseline", "the baseline has no such metric")
    if (new.unit, new.higher_is_better) != (old.unit, old.higher_is_better):
        return undecided(name, f"<= {limit} below the baseline", "the metric has another unit or direction there")
    reach = reach_of(limit, new, old.sparse)
    text = f"<= {new.limit(reach)} below the baseline"
    sign = 1.0 if new.higher_is_better else -1.0
    drop = sign * new.factor * (old.sparse.value - new.sparse.value)
    measured = f"{new.written(new.sparse.value)}, was {new.written(old.sparse.value)}"
    return decided(name, measured, text, passed=drop <= reach)


def latency_regression(new: Variant, old: Variant, policy: GatePolicy) -> Iterator[RuleResult]:
    """The sparse file has not become slower, at any batch size that both reports have.

    A machine is faster on one day than on another. Where both reports timed the same dense model beside the sparse
    file, it is the control: what is compared is sparse over dense, each within one run.
    """
    limit = policy.max_latency_regression
    if limit is None:
        return
    text = _latency_limit(limit, policy.latency_floor_ms)
    if new.latency is None or old.latency is None or new.latency.requested != old.latency.requested:
        yield undecided("latency against baseline", text, "latency is not in both reports, on one provider")
        return
    controlled = _same_dense_model(new, old)
    before, now = ([ratio.at for ratio in latency.ratios] for latency in (old.latency, new.latency))
    common = [at for at in now if at in before]
    if not common:
        sizes = f"the report has batch {', '.join(now)}, the baseline {', '.join(before)}"
        yield undecided("latency against baseline", text, f"no batch is in both: {sizes}; use the same --latency-batch")
    for at in common:
        change = latency_change(new.latency, old.latency, at, controlled=controlled)
        yield judge_change(change, limit=limit, floor_ms=policy.latency_floor_ms)


@dataclass(frozen=True)
class LatencyChange:
    """By how much a file has become slower, with an interval; 0.1 is ten percent.

    Attributes:
        at: Batch size, and the items' where it varies.
        controlled: Whether the dense file of both runs was the control.
        median_ms: Median latency of the new sparse file.
    """

    at: str
    controlled: bool
    median_ms: float
    value: float
    low: float
    high: float


def latency_change(new: Latency, old: Latency, at: str, *, controlled: bool) -> LatencyChange:
    """The change from one run to another; both runs are independent.

    Args:
        new: Of the report.
        old: Of the baseline.
        at: What both have: `LatencyCase.at`.
        controlled: Compare sparse over dense, not sparse alone.
    """
    series, before = _sparse(new, at), _sparse(old, at)
    if controlled:
        now, then = (next(r for r in side.ratios if r.at == at) for side in (new, old))
        ends = _quotient((then.speedup, then.low, then.high), (now.speedup, now.low, now.high))
    else:
        sides = ((s.p50_ms, s.p50_low_ms, s.p50_high_ms) for s in (series, before))
        ends = _quotient(*sides)
    value, low, high = (end - 1 for end in ends)
    return LatencyChange(at, controlled, series.p50_ms, value, low, high)


def _quotient(a: _Estimate, b: _Estimate) -> _Estimate:
    """A quotient of independent estimates with its interval, from theirs (Zou & Donner 2008, on logarithms)."""
    (x, x_low, x_high), (y, y_low, y_high) = (tuple(map(math.log, side)) for side in (a, b))
    low = x - y - math.hypot(x - x_low, y_high - y)
    high = x - y + math.hypot(x_high - x, y - y_low)
    return math.exp(x - y), math.exp(low), math.exp(high)


def judge_change(change: LatencyChange, *, limit: float, floor_ms: float) -> RuleResult:
    """The verdict on a change, by its interval.

    Args:
        change: What was measured.
        limit: Percent above the baseline that is still accepted.
        floor_ms: A difference below this is no regression, whatever its percentage.
    """
    text = _latency_limit(limit, floor_ms)
    control = ", the dense file as control" if change.controlled else ""
    measured = f"{change.value:+.1%} [{change.low:+.1%}, {change.high:+.1%}]{control}"
    name = f"latency against baseline, batch {change.at}"
    before_ms = change.median_ms / (1 + change.value)
    if change.high * before_ms <= floor_ms or change.high <= limit / 100:
        return decided(name, measured, text, passed=True)
    if change.low > limit / 100:
        return decided(name, measured, text, passed=False)
    return undecided(name, text, f"{INSIDE}--latency-runs", measured)


def _latency_limit(limit: float, floor_ms: float) -> str:
    return f"<= {limit:g} % above the baseline, or {floor_ms:g} ms"


def _same_dense_model(new: Variant, old: Variant) -> bool:
    """The files themselves may differ in what they say of the pruning run."""
    same_source = new.dense.metadata.get(_SOURCE, "new") == old.dense.metadata.get(_SOURCE, "old")
    return same_source and (new.dense.precision, new.dense.opset) == (old.dense.precision, old.dense.opset)


def _sparse(latency: Latency, at: str) -> LatencySeries:
    return next(s for s in latency.series if (s.role, s.at) == ("sparse", at))


def size_regression(new: Variant, old: Variant, policy: GatePolicy) -> Iterator[RuleResult]:
    """The sparse file has not grown."""
    limit = policy.max_size_regression
    if limit is None:
        return
    growth = new.sparse.size_bytes / old.sparse.size_bytes - 1
    text = f"<= {limit:g} % above the baseline"
    yield decided("size against baseline", f"{growth:+.1%}", text, passed=growth <= limit / 100)


COMPARISONS: dict[str, Comparison] = {
    "metric-regression": metric_regression,
    "latency-regression": latency_regression,
    "size-regression": size_regression,
}
