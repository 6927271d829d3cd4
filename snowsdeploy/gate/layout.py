"""Rules on the file itself: its pattern, how much of the model has it, and that it runs at all."""

from __future__ import annotations

from collections.abc import Iterator

from snowsdeploy.errors import UsageError
from snowsdeploy.gate.results import decided, undecided
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import Report, RuleResult, SparsityEvidence, Variant

_SHOWN = 5  # names in a reason
_NOT_CHECKED = "the layout was not checked: run snowsdeploy validate"


def layout(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """Every pruned layer holds the run's pattern in the sparse file; cannot be switched off.

    It is judged by the counted groups and violations of each layer, never by what the report concludes from them.
    """
    del policy
    wanted, evidence = [d.name for d in report.prune.pruned], variant.sparsity
    limit = f"{len(wanted)} of {len(wanted)} layers {report.prune.pattern}"
    if evidence is None:
        yield undecided("layout", limit, _NOT_CHECKED)
        return
    broken = [name for name in wanted if not evidence.holds(name)]
    measured = f"{len(wanted) - len(broken)} of {len(wanted)} layers"
    reason = _contradiction(evidence, variant, report) or ", ".join(broken[:_SHOWN])
    yield decided("layout", measured, limit, passed=not reason, reason=reason)


def _contradiction(evidence: SparsityEvidence, variant: Variant, report: Report) -> str:
    """Why the evidence proves nothing of this run's file; empty where it may."""
    wanted = [d.name for d in report.prune.pruned]
    if not wanted:
        return "no layer is pruned, so that nothing holds the pattern"
    pattern = _pattern(report.prune.pattern)
    if pattern is None or _pattern(evidence.pattern) != pattern:
        return f"the file was checked for {evidence.pattern}, the run says {report.prune.pattern}"
    if sorted(evidence.expected) != sorted(wanted):
        names = sorted(set(evidence.expected) ^ set(wanted))
        return f"the layers that were checked are not those decided pruned: {', '.join(names[:_SHOWN])}"
    if evidence.sha256 != variant.sparse.sha256:
        return "the layout was checked on another file than the sparse one"
    return ""


def _pattern(text: str) -> Pattern | None:
    try:
        return Pattern.parse(text)
    except UsageError:
        return None


def runs(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """ONNX Runtime does not end the process that runs the files; cannot be switched off."""
    del report, policy
    if variant.crash:
        reason = "nothing else can be measured here; try another version of onnxruntime, or another --provider"
        yield decided("runs", variant.crash, "ONNX Runtime runs the files", passed=False, reason=reason)


def coverage(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """Enough of the model's weights are in layers with the pattern, counted again from the layers."""
    del report
    limit = policy.min_coverage
    if limit is None:
        return
    text = f">= {limit:.0%} of weights"
    if variant.sparsity is None:
        yield undecided("coverage", text, _NOT_CHECKED)
    elif not variant.sparsity.weights_total:
        yield undecided("coverage", text, "the file has no weights of convolutions or matrix products", "0 weights")
    else:
        value = variant.sparsity.coverage
        yield decided("coverage", f"{value:.1%}", text, passed=value >= limit)
