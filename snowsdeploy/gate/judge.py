"""Report and policy -> verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from snowsdeploy.gate.accuracy import accuracy
from snowsdeploy.gate.baseline import require_comparable
from snowsdeploy.gate.engine import compilation, layers_chosen, layers_found
from snowsdeploy.gate.layout import coverage, layout, runs
from snowsdeploy.gate.parity import parity
from snowsdeploy.gate.regression import COMPARISONS
from snowsdeploy.gate.results import Rule, undecided
from snowsdeploy.gate.speed import latency, provider, speedup
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import PRECISIONS, Report, RuleResult, Variant, Verdict

# By the name that switches one off; the first two and parts of accuracy have their own ways.
RULES: dict[str, Rule] = {
    "layout": layout,
    "runs": runs,
    "coverage": coverage,
    "parity": parity,
    "accuracy": accuracy,
    "speed-up": speedup,
    "latency": latency,
    "provider": provider,
    "compilation": compilation,
    "found": layers_found,
    "chosen": layers_chosen,
}
# Keys with a table by precision, each with the name that switches its rule off.
_BY_PRECISION = {"max_parity_error": "parity", "min_found": "found", "min_chosen": "chosen"}
# What needs a baseline: the name that switches it off -> its row, and the keys that ask for it.
_RELATIVE = {
    "metric-regression": ("accuracy against baseline", ("max_metric_regression",)),
    "latency-regression": ("latency against baseline", ("max_latency_regression", "latency_floor_ms")),
    "size-regression": ("size against baseline", ("max_size_regression",)),
}


def judge(
    report: Report, policy: GatePolicy, baseline: Report | None = None, proven: Sequence[RuleResult] = ()
) -> Verdict:
    """Apply every rule; any fail fails, else anything inconclusive is inconclusive.

    Whatever a policy names is judged, or has a row that says why it cannot be.

    Args:
        report: What is judged.
        policy: The limits.
        baseline: An earlier report, for the relative limits.
        proven: What `layout.verify` says of the files, where they were read again; it counts like every rule.

    Raises:
        OutputError: The baseline is of another model, pattern, precision or evaluation set.
    """
    if baseline is not None:
        require_comparable(report, baseline)
    results = [*proven]
    results += [
        _named(result, variant, report)
        for variant in report.variants
        for result in (*_absolute(variant, report, policy), *_relative(variant, baseline, policy))
    ]
    if not report.variants:
        results.append(undecided("layout", "", "no precision was measured: run snowsdeploy validate", ""))
    results += _precisions_that_lack(report, baseline, policy)
    results += _without_baseline(policy) if baseline is None else ()
    return Verdict.of(results)


def _absolute(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    for name, rule in RULES.items():
        if name not in policy.off:
            yield from rule(variant, report, policy)


def _relative(variant: Variant, baseline: Report | None, policy: GatePolicy) -> Iterator[RuleResult]:
    if baseline is None:
        return
    before = next((v for v in baseline.variants if v.precision == variant.precision), None)
    if before is None:
        yield undecided("baseline", "", f"the baseline has no {variant.precision}", "")
        return
    for name, rule in COMPARISONS.items():
        if name not in policy.off:
            yield from rule(variant, before, policy)


def _precisions_that_lack(report: Report, baseline: Report | None, policy: GatePolicy) -> Iterator[RuleResult]:
    """A precision that the policy names, or that the baseline has, must be in the report."""
    there = [variant.precision for variant in report.variants]
    reason = f"the report has {', '.join(there) or 'no precision'}: run prune-export or export with this --precision"
    for key, rule in _BY_PRECISION.items():
        table = getattr(policy, key)
        if policy.named(key) and rule not in policy.off and isinstance(table, dict):
            for precision in PRECISIONS:
                if precision in table and precision not in there:
                    yield undecided(f"{rule}, {precision}", f"{key}.{precision} = {table[precision]:g}", reason)
    for variant in baseline.variants if baseline else ():
        if variant.precision not in there:
            yield undecided(f"baseline, {variant.precision}", "", reason, "")


def _without_baseline(policy: GatePolicy) -> Iterator[RuleResult]:
    for switch, (rule, keys) in _RELATIVE.items():
        if switch not in policy.off and getattr(policy, keys[0]) is not None and policy.named(*keys):
            told = ", ".join(f"{key} = {getattr(policy, key)}" for key in keys if policy.named(key))
            yield undecided(rule, told, "no baseline: pass --baseline to snowsdeploy gate, or switch the rule off")


def _named(result: RuleResult, variant: Variant, report: Report) -> RuleResult:
    """With several precisions a rule says which one it judges."""
    if len(report.variants) == 1:
        return result
    return result.model_copy(update={"rule": f"{result.rule}, {variant.precision}"})
