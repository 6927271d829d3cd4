"""The rules: pure functions of one precision's measurements and a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import Accuracy, Proportion, Report, RuleResult, Variant

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
    value = variant.parity.worst_relative_l2
    yield _result("parity", f"{value:.1e}", text, passed=value <= limit)


def accuracy_drop(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """Sparse top-1 is not far below dense."""
    del report
    yield from _accuracy_drop(variant.accuracy, policy)


def _accuracy_drop(accuracy: Accuracy | None, policy: GatePolicy) -> Iterator[RuleResult]:
    limit = policy.max_accuracy_drop
    if limit is None:
        return
    text = f"<= {limit:g} points"
    if accuracy is None:
        yield _missing("accuracy drop", text, "accuracy was not measured; pass --eval-data")
    elif accuracy.paired is not None:
        paired = accuracy.paired
        measured = f"{paired.drop:.2f} points [{paired.drop_low:.2f}, {paired.drop_high:.2f}]"
        outcome = _judge_upper(paired.drop, paired.drop_low, paired.drop_high, limit, strict=policy.strict_intervals)
        yield RuleResult(rule="accuracy drop", measured=measured, limit=text, verdict=outcome[0], reason=outcome[1])


def top1(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """Sparse top-1 is high enough."""
    del report
    yield from _top1(variant.accuracy, policy)


def _top1(accuracy: Accuracy | None, policy: GatePolicy) -> Iterator[RuleResult]:
    limit = policy.min_top1
    if limit is None:
        return
    text = f">= {limit:.2%}"
    value = accuracy.sparse_top1 if accuracy else None
    if value is None:
        yield _missing("top-1", text, "accuracy needs labelled --eval-data")
        return
    yield _proportion("top-1", value, limit, text, strict=policy.strict_intervals)


def top1_agreement(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """Without labels: both models choose the same class often enough."""
    del report
    yield from _top1_agreement(variant.accuracy, policy)


def _top1_agreement(accuracy: Accuracy | None, policy: GatePolicy) -> Iterator[RuleResult]:
    limit = policy.min_top1_agreement
    if limit is None or accuracy is None or accuracy.paired is not None:
        return
    value = accuracy.agreement.top1
    yield _proportion("top-1 agreement", value, limit, f">= {limit:.1%}", strict=policy.strict_intervals)


def judge_accuracy(accuracy: Accuracy, policy: GatePolicy) -> tuple[RuleResult, ...]:
    """The accuracy rules alone, on outputs that no file gave yet."""
    return tuple(r for rule in (_accuracy_drop, _top1, _top1_agreement) for r in rule(accuracy, policy))


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


RULES: tuple[Rule, ...] = (
    layout,
    runs,
    coverage,
    parity,
    accuracy_drop,
    top1,
    top1_agreement,
    speedup,
    latency,
    provider,
    compilation,
)


def _result(rule: str, measured: str, limit: str, *, passed: bool, reason: str = "") -> RuleResult:
    return RuleResult(
        rule=rule, measured=measured, limit=limit, verdict="pass" if passed else "fail", reason="" if passed else reason
    )


def _missing(rule: str, limit: str, reason: str) -> RuleResult:
    return RuleResult(rule=rule, measured="not measured", limit=limit, verdict="inconclusive", reason=reason)


def _proportion(rule: str, value: Proportion, limit: float, text: str, *, strict: bool) -> RuleResult:
    verdict, reason = _judge_upper(-value.value, -value.high, -value.low, -limit, strict=strict)
    measured = f"{value.value:.2%} [{value.low:.2%}, {value.high:.2%}]"
    return RuleResult(rule=rule, measured=measured, limit=text, verdict=verdict, reason=reason)


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
