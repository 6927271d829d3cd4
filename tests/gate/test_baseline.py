"""A baseline of something else is refused with what differs; what it lacks is inconclusive."""

from __future__ import annotations

import pytest

from snowsdeploy.errors import OutputError
from snowsdeploy.gate.judge import judge
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import InputInfo, ModelSignature, Report, RuleResult
from tests.sample_report import make_report, with_variant


def refusal(new: Report, old: Report) -> str:
    with pytest.raises(OutputError, match="--baseline is of something else") as caught:
        judge(new, GatePolicy(), old)
    assert all((caught.value.seen, caught.value.allowed, caught.value.fix))
    return str(caught.value.seen)


def source(report: Report, **changes: object) -> Report:
    return report.model_copy(update={"source": report.source.model_copy(update=changes)})


def evaluated_on(report: Report, **changes: object) -> Report:
    accuracy = report.variants[0].accuracy
    assert accuracy is not None
    data = accuracy.data.model_copy(update=changes)
    return with_variant(report, accuracy=accuracy.model_copy(update={"data": data}))


def pruned(report: Report, **changes: object) -> Report:
    return report.model_copy(update={"prune": report.prune.model_copy(update=changes)})


def test_another_model_is_refused_with_what_differs() -> None:
    report = make_report()
    assert "architecture resnet20, the baseline's is vit" in refusal(report, source(report, arch="vit"))
    other = source(report, source="runs/other.pth", sha256="1" * 64)
    assert refusal(report, other) == "model model.pth, the baseline's is runs/other.pth"
    signature = ModelSignature(inputs=(InputInfo(name="input", shape=(3, 64, 64)),), outputs=("output",))
    assert "3x64x64" in refusal(report, report.model_copy(update={"signature": signature}))
    fewer = pruned(report, decisions=report.prune.decisions[:-1])
    assert "stages.5.dw" in refusal(report, fewer)
    assert "another way" in refusal(report, report.model_copy(update={"preprocessing": None}))


@pytest.mark.parametrize("changes", [{"sha256": "1" * 64}, {"source": "/elsewhere/model.pth", "sha256": "1" * 64}])
def test_a_model_that_was_trained_anew_is_the_same_model(changes: dict[str, object]) -> None:
    assert judge(make_report(), GatePolicy(), source(make_report(), **changes)).verdict == "pass"


def test_a_renamed_file_is_the_same_model() -> None:
    report = source(make_report(), sha256="1" * 64)
    assert judge(report, GatePolicy(), source(report, source="renamed.pth")).verdict == "pass"


def test_another_pattern_precision_or_evaluation_set_is_refused() -> None:
    report = make_report()
    assert refusal(report, pruned(report, pattern="1:4")) == "pattern 2:4, the baseline's is 1:4"
    (variant,) = report.variants
    half = {side: getattr(variant, side).model_copy(update={"precision": "fp16"}) for side in ("dense", "sparse")}
    assert refusal(report, with_variant(report, **half)) == "precision fp32, the baseline's is fp16"
    assert "evaluated on 1000 items" in refusal(report, evaluated_on(report, fingerprint="others"))
    one, other = (evaluated_on(report, fingerprint=c, content=c) for c in "ab")
    assert "1000 others" in refusal(one, other)


def test_the_same_files_at_another_path_are_the_same_evaluation_set() -> None:
    one, other = (evaluated_on(make_report(), fingerprint=f, content="same") for f in "ab")
    assert judge(one, GatePolicy(), other).verdict == "pass"


def rows(new: Report, old: Report | None, **limits: object) -> dict[str, RuleResult]:
    return {r.rule: r for r in judge(new, GatePolicy.model_validate(limits), old).rules}


def test_a_precision_that_only_the_baseline_has_is_inconclusive() -> None:
    report = make_report()
    (variant,) = report.variants
    half = {side: getattr(variant, side).model_copy(update={"precision": "fp16"}) for side in ("dense", "sparse")}
    both = report.model_copy(update={"variants": (variant, variant.model_copy(update=half))})
    found = rows(report, both)
    assert (found["baseline, fp16"].verdict, "the report has fp32" in found["baseline, fp16"].reason) == (
        "inconclusive",
        True,
    )
    assert rows(both, report)["baseline, fp16"].reason == "the baseline has no fp16"


def at_batch(report: Report, size: int) -> Report:
    latency = report.variants[0].latency
    assert latency is not None
    series = tuple(row.model_copy(update={"batch": size}) for row in latency.series[:2])
    ratios = (latency.ratios[0].model_copy(update={"batch": size}),)
    return with_variant(report, latency=latency.model_copy(update={"series": series, "ratios": ratios}))


def test_no_batch_in_common_is_inconclusive_and_one_is_enough() -> None:
    report = make_report()
    row = rows(report, at_batch(report, 7), max_latency_regression=10.0)["latency against baseline"]
    assert (row.verdict, "the report has batch 1, 128, the baseline 7" in row.reason) == ("inconclusive", True)
    found = rows(report, at_batch(report, 128), max_latency_regression=10.0)
    assert [name for name in found if name.startswith("latency")] == ["latency against baseline, batch 128"]


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        ({"max_metric_regression": 0.5}, "accuracy against baseline"),
        ({"max_metric_regression": {"top1": 0.5}}, "accuracy against baseline"),
        ({"max_latency_regression": 10.0}, "latency against baseline"),
        ({"latency_floor_ms": 0.1}, "latency against baseline"),
        ({"max_size_regression": 1.0}, "size against baseline"),
    ],
)
def test_a_relative_limit_without_a_baseline_is_inconclusive(limits: dict[str, object], rule: str) -> None:
    found = rows(make_report(), None, **limits)
    assert found[rule].verdict == "inconclusive"
    assert "pass --baseline" in found[rule].reason
    (key,) = limits
    assert key in found[rule].limit
    switch = f"{'metric' if rule.startswith('accuracy') else rule.split(maxsplit=1)[0]}-regression"
    assert rule not in rows(make_report(), None, **limits, off=(switch,))
    assert rule not in rows(make_report(), None)


def test_a_metric_that_the_report_lost_is_inconclusive() -> None:
    report = make_report()
    accuracy = report.variants[0].accuracy
    assert accuracy is not None
    lost = with_variant(report, accuracy=accuracy.model_copy(update={"metrics": accuracy.metrics[1:]}))
    assert rows(lost, report)["top1 against baseline"].verdict == "inconclusive"
