"""Rules on how right the sparse model is, and how like the dense one."""

from __future__ import annotations

from collections.abc import Iterator

from snowsdeploy.gate.limits import absent, limit_of, not_there, reach_of
from snowsdeploy.gate.results import judge_upper, undecided
from snowsdeploy.settings.policy import OFF, GatePolicy
from snowsdeploy.values import Accuracy, Agreement, Estimate, Metric, Quantity, Report, RuleResult, Variant


def accuracy(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """The sparse model is not far below the dense one by any metric, good enough, and alike where there is none."""
    del report
    yield from judge_accuracy(variant.accuracy, policy)


def judge_accuracy(found: Accuracy | None, policy: GatePolicy) -> Iterator[RuleResult]:
    """The accuracy rules alone, also on outputs that no file gave yet."""
    yield from _drops(found, policy)
    yield from _values(found, policy)
    if policy.named("agreement") or (found is not None and not found.metrics):
        yield from _agreement(found, policy)


def _drops(found: Accuracy | None, policy: GatePolicy) -> Iterator[RuleResult]:
    asked = policy.max_drop
    if asked is None or "drop" in policy.off:
        return
    text = "its usual limit" if isinstance(asked, dict) else f"<= {asked}"
    names = [] if found is None else [metric.name for metric in found.metrics]
    if found is None or (found.calibration and not names):
        yield undecided("accuracy drop", text, "accuracy was not measured; pass --eval-data")
        return
    for name, wanted in absent(asked, names).items():
        yield undecided(f"{name} drop", f"<= {wanted}", not_there(names))
    if not names and (found.data.labelled and found.task != "any"):
        yield undecided("accuracy drop", text, "the evaluation images have labels, and the report has no metric")
    elif not names and not isinstance(asked, dict):
        yield undecided("accuracy drop", text, "the evaluation images have no labels, so that there is no metric")
    judged = False
    for place, metric in enumerate(found.metrics):
        limit = limit_of(asked, metric.name, metric.usual_drop, first=place == 0)
        if limit is not None:
            judged = True
            yield _drop(metric, limit, strict=policy.strict_intervals)
    if judged or policy.min or policy.max or not isinstance(asked, dict):
        return
    if names and asked.get(names[0]) != OFF:
        yield undecided(f"{names[0]} drop", "none", f"no goal: add --metric-goal '{names[0]} drop<=X'")


def _drop(metric: Metric, limit: float | str, *, strict: bool) -> RuleResult:
    drop = metric.drop
    reach = reach_of(limit, metric, metric.dense)
    if isinstance(limit, str):
        text = f"<= {limit.replace(' ', '')} of dense: {metric.difference(reach)}"
    else:
        text = f"<= {metric.limit(limit)}"
    verdict, reason = judge_upper(
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
    metrics = () if found is None else found.metrics
    why_not = not_there([m.name for m in metrics]) if metrics else "it needs --eval-data with targets, or --metric"
    for bounds, sign in ((policy.min, ">="), (policy.max, "<=")):
        for name, limit in bounds.items():
            named = [metric for metric in metrics if metric.name == name]
            if not named:
                yield undecided(name, f"{sign} {limit:g}", why_not)
            for metric in named:
                yield _bound(metric.label, metric, metric.sparse, limit, sign, strict=policy.strict_intervals)


def _agreement(found: Accuracy | None, policy: GatePolicy) -> Iterator[RuleResult]:
    asked = policy.agreement
    if asked is None or "agreement" in policy.off:
        return
    measures = () if found is None else found.agreement
    names = [measure.name for measure in measures]
    for name, wanted in absent(asked, names).items():
        yield undecided(f"{name} agreement", f"{wanted}", not_there(names))
    if not measures and not isinstance(asked, dict):
        yield undecided("agreement", f"{asked:g}", "accuracy was not measured; pass --eval-data")
    limits = [limit_of(asked, m.name, m.usual_limit, first=place == 0) for place, m in enumerate(measures)]
    if measures and not any(isinstance(limit, float | int) for limit in limits) and OFF not in _values_of(asked):
        yield undecided("agreement", "none", f"no measure has a usual limit: name one of {', '.join(names)}")
    for measure, limit in zip(measures, limits, strict=True):
        if isinstance(limit, float | int):
            yield _alike(measure, limit, policy, calibration=found is not None and found.calibration)


def _values_of(asked: object) -> list[object]:
    return list(asked.values()) if isinstance(asked, dict) else []


def _alike(measure: Agreement, limit: float, policy: GatePolicy, *, calibration: bool) -> RuleResult:
    sign, rule = ">=" if measure.higher_is_better else "<=", f"agreement, {measure.label}"
    result = _bound(rule, measure, measure.measured, limit, sign, strict=policy.strict_intervals)
    where = "on the calibration data" if calibration else ""
    return result.model_copy(update={"reason": "; ".join(part for part in (result.reason, where) if part)})


def _bound(rule: str, quantity: Quantity, value: Estimate, limit: float, sign: str, *, strict: bool) -> RuleResult:
    ends = (value.value, _end(value.low, value.value), _end(value.high, value.value))
    if sign == ">=":
        verdict, reason = judge_upper(-ends[0], -ends[2], -ends[1], -limit, strict=strict)
    else:
        verdict, reason = judge_upper(*ends, limit, strict=strict)
    return RuleResult(
        rule=rule,
        measured=quantity.estimated(value),
        limit=f"{sign} {quantity.written(limit)}",
        verdict=verdict,
        reason=reason,
    )


def _end(end: float | None, value: float) -> float:
    return value if end is None else end
