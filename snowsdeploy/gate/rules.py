"""The rules: pure functions of one precision's measurements and a limit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal

from snowsdeploy.settings.policy import OFF, GatePolicy
from snowsdeploy.values import Accuracy, Estimate, Metric, Quantity, Report, RuleResult, Variant

Outcome = Literal["pass", "fail", "inconclusive"]
Rule = Callable[[Variant, Report, GatePolicy], Iterator[RuleResult]]


def layout(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """Every pruned layer holds the pattern in the sparse file; cannot be switched off."""
    del policy
    evidence, wanted = variant.sparsity, [d.name for d in report.prune.pruned]
    limit = f"{len(wanted)} of {len(wanted)} layers {report.prune.pattern}"
    if evidence is None:
        yield _missing("layout", limit, "the layout was not checked")
        return
    valid = {row.name for row in evidence.layers if row.layout_valid}
    valid -= {row.name for row in evidence.layers if not row.layout_valid}
    broken = [name for name in wanted if name not in valid]
    measured = f"{len(wanted) - len(broken)} of {len(wanted)} layers"
    yield _result("layout", measured, limit, passed=not broken, reason=", ".join(broken[:5]))


def runs(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """ONNX Runtime does not end the process that runs the files; cannot be switched off."""
    del report, policy
    if variant.crash:
        reason = "nothing else can be measured here; try another version of onnxruntime, or another --provider"
        yield _result("runs", variant.crash, "ONNX Runtime runs the files", passed=False, reason=reason)


def coverage(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """Enough of the model's weights are in layers with the pattern."""
    del report
    limit = policy.min_coverage
    if limit is None:
        return
    text = f">= {limit:.0%} of weights"
    if variant.sparsity is None:
        yield _missing("coverage", text, "the layout was not checked")
        return
    value = variant.sparsity.coverage
    yield _result("coverage", f"{value:.1%}", text, passed=value >= limit)


def parity(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """The ONNX file computes what PyTorch computes."""
    del report
    limit = policy.parity_limit(variant.precision)
    if limit is None:
        return
    text = f"<= {limit:.0e} relative"
    if variant.parity is None:
        yield _missing("parity", text, "parity was not measured")
        return
    rows = sorted(variant.parity.rows, key=lambda row: row.relative_l2, reverse=True)
    beyond = [row for row in rows if not row.within(limit)]
    worst = beyond[0] if beyond else next(iter(rows), None)
    if worst is None:
        yield _missing("parity", text, "nothing was compared")
        return
    excused = not beyond and worst.relative_l2 > limit
    reason = f"rounding alone moves PyTorch's {worst.output} by {worst.rounding:.0e}" if excused else ""
    yield _result("parity", f"{worst.relative_l2:.1e}", text, passed=not beyond).model_copy(update={"reason": reason})


def accuracy(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """The sparse model is not far below the dense one by any metric, good enough, and alike where there is none."""
    del report
    yield from judge_accuracy(variant.accuracy, policy)


def judge_accuracy(found: Accuracy | None, policy: GatePolicy) -> Iterator[RuleResult]:
    """The accuracy rules alone, also on outputs that no file gave yet."""
    yield from _drops(found, policy)
    yield from _values(found, policy)
    if found is not None and not found.metrics:
        yield from _agreement(found, policy)


def _drops(found: Accuracy | None, policy: GatePolicy) -> Iterator[RuleResult]:
    if policy.max_drop is None or "drop" in policy.off:
        return
    if found is None or (found.calibration and not found.metrics):
        asked = policy.max_drop
        text = f"<= {asked:g}" if isinstance(asked, int | float) else "its usual limit"
        yield _missing("accuracy drop", text, "accuracy was not measured; pass --eval-data")
        return
    names = [metric.name for metric in found.metrics]
    for name, wanted in absent(policy.max_drop, names).items():
        yield _missing(f"{name} drop", f"<= {wanted}", _not_there(names))
    judged = False
    for place, metric in enumerate(found.metrics):
        limit = limit_of(policy.max_drop, metric.name, metric.usual_drop, first=place == 0)
        if limit is not None:
            judged = True
            yield _drop(metric, limit, strict=policy.strict_intervals)
    if judged or policy.min or policy.max or not isinstance(policy.max_drop, dict):
        return
    if names and policy.max_drop.get(names[0]) != OFF:
        yield _missing(f"{names[0]} drop", "none", f"no goal: add --metric-goal '{names[0]} drop<=X'")


def _drop(metric: Metric, limit: float | str, *, strict: bool) -> RuleResult:
    drop = metric.drop
    reach = reach_of(limit, metric, metric.dense)
    if isinstance(limit, str):
        text = f"<= {limit.replace(' ', '')} of dense: {metric.difference(reach)}"
    else:
        text = f"<= {metric.limit(limit)}"
    verdict, reason = _judge_upper(
        drop.value, _end(drop.low, drop.value), _end(drop.high, drop.value), reach, strict=strict
    )
    return RuleResult(
        rule=f"{metric.label} drop",
        measured=metric.dropped,
        limit=text,
        verdict=verdict,
        reason=reason,
    )


def _values(found: Accuracy | None, policy: GatePolicy) -> Iterator[RuleResult]:
    metrics = {} if found is None else {metric.name: metric for metric in found.metrics}
    for bounds, sign in ((policy.min, ">="), (policy.max, "<=")):
        for name, limit in bounds.items():
            metric = metrics.get(name)
            if metric is None:
                reason = (
                    "accuracy needs --eval-data with targets, or --metric" if not metrics else _not_there([*metrics])
                )
                yield _missing(name, f"{sign} {limit:g}", reason)
                continue
            yield _bound(metric.label, metric, metric.sparse, limit, sign, strict=policy.strict_intervals)


def _agreement(found: Accuracy, policy: GatePolicy) -> Iterator[RuleResult]:
    if policy.agreement is None or "agreement" in policy.off:
        return
    names = [measure.name for measure in found.agreement]
    for name, wanted in absent(policy.agreement, names).items():
        yield _missing(f"{name} agreement", f"{wanted}", _not_there(names))
    for place, measure in enumerate(found.agreement):
        limit = limit_of(policy.agreement, measure.name, measure.usual_limit, first=place == 0)
        if isinstance(limit, float | int):
            sign = ">=" if measure.higher_is_better else "<="
            result = _bound(
                f"agreement, {measure.label}", measure, measure.measured, limit, sign, strict=policy.strict_intervals
            )
            where = "on the calibration data" if found.calibration else ""
            reason = "; ".join(part for part in (result.reason, where) if part)
            yield result.model_copy(update={"reason": reason})


def _bound(rule: str, quantity: Quantity, value: Estimate, limit: float, sign: str, *, strict: bool) -> RuleResult:
    ends = (value.value, _end(value.low, value.value), _end(value.high, value.value))
    if sign == ">=":
        verdict, reason = _judge_upper(-ends[0], -ends[2], -ends[1], -limit, strict=strict)
    else:
        verdict, reason = _judge_upper(*ends, limit, strict=strict)
    return RuleResult(
        rule=rule,
        measured=quantity.estimated(value),
        limit=f"{sign} {quantity.written(limit)}",
        verdict=verdict,
        reason=reason,
    )


def _end(end: float | None, value: float) -> float:
    return value if end is None else end


def _not_there(names: Sequence[str]) -> str:
    return f"the report has {', '.join(names) or 'no metric'}"


def absent(limits: float | str | Mapping[str, float | str], names: Collection[str]) -> dict[str, float | str]:
    """What a policy asks of metrics that a report does not have."""
    if not isinstance(limits, Mapping):
        return {}
    return {name: limit for name, limit in limits.items() if name not in names and limit != OFF}


def reach_of(limit: float | str, quantity: Quantity, of: Estimate) -> float:
    """A limit of drops in the unit of differences.

    Args:
        limit: A number in that unit, or a text such as `1%`.
        quantity: What drops.
        of: What such a text is relative to.
    """
    return float(limit.rstrip("% ")) / 100 * abs(of.value) * quantity.factor if isinstance(limit, str) else limit


def limit_of(
    limits: float | str | Mapping[str, float | str], name: str, usual: float | None, *, first: bool
) -> float | str | None:
    """What a policy says of one metric: its own limit, else the usual one; None where it is not judged.

    Args:
        limits: One for the metric that counts most, or a table.
        name: The metric's.
        usual: Its usual limit.
        first: Whether it counts most.
    """
    if isinstance(limits, Mapping):
        found = limits.get(name, usual)
        return None if found == OFF else found
    return limits if first else None


def speedup(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """The sparse file is faster, at every batch size; judged by the interval."""
    del report
    limit = policy.min_speedup
    if limit is None:
        return
    if variant.latency is None:
        yield _missing("speed-up", f">= {limit:g}x", "latency was not measured")
        return
    for ratio in variant.latency.ratios:
        outcome: Outcome = "pass" if ratio.low >= limit else "fail" if ratio.high < limit else "inconclusive"
        yield RuleResult(
            rule=f"speed-up, batch {ratio.at}",
            measured=f"{ratio.speedup:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]",
            limit=f">= {limit:g}x",
            verdict=outcome,
            reason="" if outcome != "inconclusive" else "the limit lies inside the interval: use more --latency-runs",
        )


def latency(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """The sparse file's median latency is low enough, at every batch size."""
    del report
    limit = policy.max_latency_ms
    if limit is None:
        return
    if variant.latency is None:
        yield _missing("latency", f"<= {limit:g} ms", "latency was not measured")
        return
    for row in variant.latency.series:
        if row.role == "sparse":
            name, passed = f"latency, batch {row.at}", row.p50_ms <= limit
            yield _result(name, f"{row.p50_ms:.2f} ms", f"<= {limit:g} ms", passed=passed)


def provider(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """The required provider ran every node."""
    del report
    wanted = policy.required_provider
    if wanted is None:
        return
    if variant.latency is None:
        yield _missing("provider", wanted, "latency was not measured")
        return
    placed = variant.latency.providers
    normal = {name.removesuffix("ExecutionProvider").lower(): count for name, count in placed.items()}
    measured = ", ".join(f"{name} {count} nodes" for name, count in normal.items())
    yield _result("provider", measured, f"{wanted} only", passed=set(normal) == {wanted.lower()})


def compilation(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """The ahead-of-time compiler takes the sparse file, where that was tried or is required."""
    del report
    found, wanted = variant.compilation, policy.required_compilation
    if found is None:
        if wanted:
            reason = "compilation was not tried; pass --compile-for"
            yield _missing("compilation", f"accepted for {', '.join(wanted)}", reason)
        return
    limit = f"accepted for {', '.join(wanted or found.capabilities)}"
    if missing := [c for c in wanted if c not in found.capabilities]:
        yield _missing("compilation", limit, f"not tried for {', '.join(missing)}")
        return
    measured = f"{'accepted' if found.accepted else 'refused'} by {found.compiler}"
    yield _result("compilation", measured, limit, passed=found.accepted, reason="; ".join(found.messages[:3]))


RULES: dict[str, Rule] = {  # by the name that switches one off; the first two and accuracy's parts have their own ways
    "layout": layout,
    "runs": runs,
    "coverage": coverage,
    "parity": parity,
    "accuracy": accuracy,
    "speed-up": speedup,
    "latency": latency,
    "provider": provider,
    "compilation": compilation,
}


def _result(rule: str, measured: str, limit: str, *, passed: bool, reason: str = "") -> RuleResult:
    return RuleResult(
        rule=rule, measured=measured, limit=limit, verdict="pass" if passed else "fail", reason="" if passed else reason
    )


def _missing(rule: str, limit: str, reason: str) -> RuleResult:
    return RuleResult(rule=rule, measured="not measured", limit=limit, verdict="inconclusive", reason=reason)


def _judge_upper(value: float, low: float, high: float, limit: float, *, strict: bool) -> tuple[Outcome, str]:
    """Judge a quantity that must not exceed a limit, by its interval when strict, else by its point."""
    if high <= limit:
        return "pass", ""
    if low > limit:
        return "fail", ""
    if strict:
        return "inconclusive", "the limit lies inside the interval: use more images"
    note = "judged by the point; the limit lies inside the interval"
    return ("pass" if value <= limit else "fail"), note
