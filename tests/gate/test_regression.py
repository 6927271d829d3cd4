"""Rules against a baseline report."""

from __future__ import annotations

import math

import numpy as np
import pytest

from snowsdeploy.gate.judge import judge
from snowsdeploy.gate.regression import latency_change
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import Report
from tests.sample_report import make_report, with_variant


def verdicts(new: Report, old: Report, **limits: object) -> dict[str, str]:
    return {r.rule: r.verdict for r in judge(new, GatePolicy.model_validate(limits), old).rules}


def timed(low: float, middle: float, high: float) -> Report:
    report = make_report()
    latency = report.variants[0].latency
    assert latency is not None
    update = {"p50_low_ms": low, "p50_ms": middle, "p50_high_ms": high}
    series = tuple(s.model_copy(update=update) for s in latency.series)
    return with_variant(report, latency=latency.model_copy(update={"series": series}))


@pytest.mark.parametrize(("right", "verdict"), [(912, "pass"), (908, "pass"), (906, "fail"), (1000, "pass")])
def test_top1_may_fall_by_so_many_points(right: int, verdict: str) -> None:
    found = verdicts(make_report(sparse_right=right), make_report(), max_metric_regression=0.5)
    assert found["top-1 against baseline"] == verdict


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        ((10.0, 10.1, 10.2), "pass"),
        ((12.0, 12.1, 12.2), "fail"),
        ((10.5, 11.0, 11.5), "inconclusive"),
        ((8.0, 8.1, 8.2), "pass"),
    ],
)
def test_latency_is_judged_by_both_intervals(times: tuple[float, float, float], verdict: str) -> None:
    found = verdicts(timed(*times), timed(9.9, 10.0, 10.1), max_latency_regression=10.0)
    assert found["latency against baseline, batch 1"] == verdict


def with_ratio(report: Report, speedup: float) -> Report:
    latency = report.variants[0].latency
    assert latency is not None
    update = {"speedup": speedup, "low": 0.97 * speedup, "high": 1.03 * speedup}
    ratios = tuple(r.model_copy(update=update) for r in latency.ratios)
    return with_variant(report, latency=latency.model_copy(update={"ratios": ratios}))


def test_the_interval_of_a_change_is_that_of_a_quotient_of_independent_estimates() -> None:
    rng = np.random.default_rng(0)
    old, new = (with_ratio(make_report(), value).variants[0].latency for value in (1.0, 0.8))
    assert old is not None
    assert new is not None
    change = latency_change(new, old, "1", controlled=True)
    spread = math.log(1.03) / 1.96
    quotients = np.exp(rng.normal(0, spread, 10**6) - rng.normal(math.log(0.8), spread, 10**6)) - 1
    low, high = np.quantile(quotients, [0.025, 0.975])
    assert (change.value, change.low, change.high) == pytest.approx((0.25, low, high), abs=2e-3)


def made_from(report: Report, checkpoint: str) -> Report:
    dense = report.variants[0].dense
    return with_variant(report, dense=dense.model_copy(update={"metadata": {"snowsdeploy.source_sha256": checkpoint}}))


@pytest.mark.parametrize(("speedup", "verdict"), [(1.0, "pass"), (0.7, "fail"), (0.92, "inconclusive")])
def test_the_dense_file_of_the_same_model_is_the_control(speedup: float, verdict: str) -> None:
    old = made_from(with_ratio(timed(9.9, 10.0, 10.1), 1.0), "checkpoint")
    slow_day = made_from(timed(19.9, 20.0, 20.1), "checkpoint")  # the machine, not the file, is half as fast
    new = with_ratio(slow_day, speedup)
    assert verdicts(new, old)["latency against baseline, batch 1"] == verdict
    assert verdicts(made_from(new, "another"), old)["latency against baseline, batch 1"] == "fail"


@pytest.mark.parametrize("other", [{"precision": "fp16"}, {"opset": 21}])
def test_a_dense_file_of_another_precision_or_opset_is_no_control(other: dict[str, object]) -> None:
    old = made_from(with_ratio(timed(9.9, 10.0, 10.1), 1.0), "checkpoint")
    new = made_from(with_ratio(timed(19.9, 20.0, 20.1), 1.0), "checkpoint")
    changed = with_variant(new, dense=new.variants[0].dense.model_copy(update=other))
    assert verdicts(new, old)["latency against baseline, batch 1"] == "pass"
    assert verdicts(changed, old)["latency against baseline, batch 1"] == "fail"
    assert verdicts(new, with_variant(old, dense=old.variants[0].dense.model_copy(update=other))) == verdicts(
        changed, old
    )


def test_a_small_absolute_difference_is_no_regression() -> None:
    found = verdicts(timed(0.13, 0.13, 0.13), timed(0.1, 0.1, 0.1), latency_floor_ms=0.05)
    assert found["latency against baseline, batch 1"] == "pass"


def test_the_floor_is_for_the_intervals_high_end() -> None:
    """0.1 ms became 0.12 to 0.16 ms: by the low end or the point it would be below a floor of 0.058."""
    old, new = timed(0.1, 0.1, 0.1), timed(0.12, 0.14, 0.16)
    for floor, verdict in ((0.058, "fail"), (0.09, "pass")):
        assert verdicts(new, old, latency_floor_ms=floor)["latency against baseline, batch 1"] == verdict


def test_the_floor_is_a_difference_from_the_baseline_in_ms() -> None:
    """0.1 ms became 0.14 ms, surely: 0.04 ms more, whatever that is in percent of the new latency."""
    old, new = timed(0.1, 0.1, 0.1), timed(0.14, 0.14, 0.14)
    for floor, verdict in ((0.0399, "fail"), (0.0401, "pass")):
        assert verdicts(new, old, latency_floor_ms=floor)["latency against baseline, batch 1"] == verdict


def test_a_precision_is_compared_with_the_same_precision() -> None:
    def sized(sizes: dict[str, int]) -> Report:
        report = make_report()
        (variant,) = report.variants
        made = [
            variant.model_copy(update={"sparse": variant.sparse.model_copy(update={"precision": p, "size_bytes": s})})
            for p, s in sizes.items()
        ]
        return report.model_copy(update={"variants": tuple(made)})

    old = sized({"fp32": 100, "fp16": 50})
    rule = "size against baseline"
    assert verdicts(sized({"fp16": 60}), old)[rule] == "fail"
    both = verdicts(sized({"fp16": 50, "fp32": 120}), old)
    assert (both[f"{rule}, fp16"], both[f"{rule}, fp32"]) == ("pass", "fail")


def test_what_cannot_be_compared_is_inconclusive() -> None:
    old = make_report()
    found = verdicts(make_report(), with_variant(old, accuracy=None, latency=None))
    assert found["accuracy against baseline"] == found["latency against baseline"] == "inconclusive"
    assert verdicts(make_report(), old.model_copy(update={"variants": ()}))["baseline"] == "inconclusive"


def test_a_larger_file_fails() -> None:
    old = make_report()
    sparse = old.variants[0].sparse
    grown = with_variant(old, sparse=sparse.model_copy(update={"size_bytes": 2 * sparse.size_bytes}))
    assert verdicts(grown, old)["size against baseline"] == "fail"
    assert verdicts(old, grown)["size against baseline"] == "pass"


@pytest.mark.parametrize("change", [{"higher_is_better": False}, {"unit": ""}])
def test_a_metric_of_another_direction_or_unit_is_inconclusive(change: dict[str, object]) -> None:
    new, old = make_report(sparse_right=600), make_report()
    accuracy = new.variants[0].accuracy
    assert accuracy is not None
    other = accuracy.metrics[0].model_copy(update=change)
    turned = with_variant(new, accuracy=accuracy.model_copy(update={"metrics": (other,)}))
    assert verdicts(new, old)["top-1 against baseline"] == "fail"
    assert verdicts(turned, old)["top-1 against baseline"] == "inconclusive"


def test_a_metric_that_is_switched_off_need_not_be_in_the_reports() -> None:
    off = judge(make_report(), GatePolicy(max_metric_regression={"wer": "off"}), make_report()).rules
    assert not [rule for rule in off if "wer" in rule.rule]
    asked = judge(make_report(), GatePolicy(max_metric_regression={"wer": 1.0}), make_report()).rules
    assert [rule.verdict for rule in asked if "wer" in rule.rule] == ["inconclusive"]
