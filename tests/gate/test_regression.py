"""Rules against a baseline report."""

from __future__ import annotations

import pytest

from snowsdeploy.artifacts import Report
from snowsdeploy.gate.judge import judge
from snowsdeploy.gate.policy import GatePolicy
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
    found = verdicts(make_report(sparse_right=right), make_report(), max_top1_regression=0.5)
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


def test_a_small_absolute_difference_is_no_regression() -> None:
    found = verdicts(timed(0.13, 0.13, 0.13), timed(0.1, 0.1, 0.1), latency_floor_ms=0.05)
    assert found["latency against baseline, batch 1"] == "pass"


def test_what_cannot_be_compared_is_inconclusive() -> None:
    old = make_report()
    accuracy = old.variants[0].accuracy
    assert accuracy is not None
    others = accuracy.data.model_copy(update={"fingerprint": "other images"})
    elsewhere = with_variant(old, accuracy=accuracy.model_copy(update={"data": others}), latency=None)
    found = verdicts(make_report(), elsewhere)
    assert found["top-1 against baseline"] == found["latency against baseline"] == "inconclusive"
    assert verdicts(make_report(), old.model_copy(update={"variants": ()}))["baseline"] == "inconclusive"


def test_a_larger_file_fails() -> None:
    old = make_report()
    sparse = old.variants[0].sparse
    grown = with_variant(old, sparse=sparse.model_copy(update={"size_bytes": 2 * sparse.size_bytes}))
    assert verdicts(grown, old)["size against baseline"] == "fail"
    assert verdicts(old, grown)["size against baseline"] == "pass"
