"""Rules on speed, and on what ran the files."""

from __future__ import annotations

from collections.abc import Iterator

from snowsdeploy.gate.results import INSIDE, decided, undecided
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.runtime import EXECUTION_PROVIDERS
from snowsdeploy.values import Latency, Outcome, Report, RuleResult, Variant

_NOT_MEASURED = "latency was not measured: run snowsdeploy validate"
_NAMES = {ep: name for name, ep in EXECUTION_PROVIDERS.items()}


def speedup(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """The sparse file is faster, at every batch size; judged by the interval."""
    limit = policy.min_speedup
    if limit is None:
        return
    text = f">= {limit:g}x"
    if variant.latency is None or not variant.latency.ratios:
        yield undecided("speed-up", text, _NOT_MEASURED)
        return
    nothing = _shows_nothing(variant.latency, report.prune.pattern)
    for ratio in variant.latency.ratios:
        outcome: Outcome = "pass" if ratio.low >= limit else "fail" if not ratio.high >= limit else "inconclusive"
        inside = f"{INSIDE}--latency-runs" if outcome == "inconclusive" else ""
        yield RuleResult(
            rule=f"speed-up, batch {ratio.at}",
            measured=f"{ratio.speedup:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]",
            limit=text,
            verdict=outcome,
            reason="; ".join(part for part in (inside, nothing) if part),
        )


def _shows_nothing(latency: Latency, pattern: str) -> str:
    """Why a ratio says nothing of what the pattern brings; empty where it does."""
    if latency.uses_sparsity != "no":
        return ""
    return f"{latency.requested} multiplies zeros like any value, so that this is not the speed of {pattern}"


def latency(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """The sparse file's median latency is low enough, at every batch size."""
    del report
    limit = policy.max_latency_ms
    if limit is None:
        return
    text = f"<= {limit:g} ms"
    rows = [row for row in variant.latency.series if row.role == "sparse"] if variant.latency else []
    if not rows:
        yield undecided("latency", text, _NOT_MEASURED)
    for row in rows:
        yield decided(f"latency, batch {row.at}", f"{row.p50_ms:.2f} ms", text, passed=0 < row.p50_ms <= limit)


def provider(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """The required provider ran every node; one that ran none is not there."""
    del report
    wanted = policy.required_provider
    if wanted is None:
        return
    if variant.latency is None:
        yield undecided("provider", f"{wanted} only", _NOT_MEASURED)
        return
    ran = {_NAMES.get(ep, ep): count for ep, count in variant.latency.providers.items() if count > 0}
    measured = ", ".join(f"{name} {count} nodes" for name, count in ran.items()) or "no node"
    reason = f"validate with --provider {wanted}, without --allow-fallback"
    yield decided("provider", measured, f"{wanted} only", passed=set(ran) == {wanted}, reason=reason)
