"""Whatever a policy names is judged, or has a row that says why it cannot be: never silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from snowsdeploy.errors import UsageError
from snowsdeploy.gate.judge import judge
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.read import load_policy
from snowsdeploy.values import Report, RuleResult
from tests.sample_report import make_report, unlabelled, with_engine, with_variant

MODIFIERS = {"strict_intervals", "off"}  # they change how others are judged
NAMED = {
    "max_drop": 1.0,
    "min": {"top1": 0.5},
    "max": {"loss": 1.0},
    "agreement": {"same_class": 0.9},
    "min_coverage": 0.5,
    "max_parity_error": {"fp16": 1e-2},
    "min_speedup": 0.5,
    "max_latency_ms": 1e6,
    "max_metric_regression": 0.5,
    "max_latency_regression": 10.0,
    "latency_floor_ms": 0.05,
    "max_size_regression": 1.0,
    "required_provider": "cpu",
    "required_compilation": ("8.6",),
    "min_found": {"fp16": 1.0},
    "min_chosen": {"fp16": 1.0},
}
ROWS = {  # what a row's name begins with
    "max_drop": "accuracy drop", "min": "top1", "max": "loss", "agreement": "same_class agreement",
    "min_coverage": "coverage", "max_parity_error": "parity", "min_speedup": "speed-up", "max_latency_ms": "latency",
    "max_metric_regression": "accuracy against", "max_latency_regression": "latency against",
    "latency_floor_ms": "latency against", "max_size_regression": "size against", "required_provider": "provider",
    "required_compilation": "compilation", "min_found": "found", "min_chosen": "chosen",
}  # fmt: skip


def rows(report: Report, policy: GatePolicy) -> dict[str, RuleResult]:
    return {r.rule: r for r in judge(report, policy).rules}


def bare() -> Report:
    return with_variant(
        make_report(), **dict.fromkeys(("accuracy", "parity", "sparsity", "latency", "compilation", "engine"))
    )


def test_every_key_is_in_these_tables() -> None:
    assert set(NAMED) == set(ROWS) == set(GatePolicy.model_fields) - MODIFIERS


@pytest.mark.parametrize("key", NAMED)
def test_a_key_without_its_measurement_is_inconclusive_with_a_reason(key: str) -> None:
    found = rows(bare(), GatePolicy.model_validate({key: NAMED[key]}))
    (row,) = (row for name, row in found.items() if name.startswith(ROWS[key]))
    assert (row.verdict, bool(row.reason)) == ("inconclusive", True)


@pytest.mark.parametrize("limit", [1.0, "1%", {"top1": 1.0}])
def test_a_drop_without_labels_is_inconclusive(limit: object) -> None:
    (row,) = (r for r in rows(unlabelled(make_report()), GatePolicy(max_drop=limit)).values() if "drop" in r.rule)
    assert row.verdict == "inconclusive"
    assert judge(unlabelled(make_report()), GatePolicy()).verdict == "pass"  # agreement is judged in its place


def test_labels_without_a_metric_are_inconclusive() -> None:
    report = make_report()
    accuracy = report.variants[0].accuracy
    assert accuracy is not None
    lost = with_variant(report, accuracy=accuracy.model_copy(update={"metrics": ()}))
    row = rows(lost, GatePolicy())["accuracy drop"]
    assert (row.verdict, row.reason) == (
        "inconclusive",
        "the evaluation images have labels, and the report has no metric",
    )
    anything = accuracy.model_copy(update={"metrics": (), "task": "any"})  # labels are for the user's metric alone
    assert "accuracy drop" not in rows(with_variant(report, accuracy=anything), GatePolicy())


def test_agreement_that_is_named_is_judged_beside_metrics() -> None:
    report = make_report()
    assert not [r for r in rows(report, GatePolicy()) if r.startswith("agreement")]
    assert rows(report, GatePolicy(agreement=0.99))["agreement, same class"].verdict == "fail"
    assert rows(report, GatePolicy(agreement={"wer": 1.0}))["wer agreement"].verdict == "inconclusive"


def test_agreement_of_which_nothing_has_a_limit_is_inconclusive() -> None:
    report = unlabelled(make_report())
    accuracy = report.variants[0].accuracy
    assert accuracy is not None
    others = with_variant(report, accuracy=accuracy.model_copy(update={"agreement": accuracy.agreement[1:]}))
    row = rows(others, GatePolicy())["agreement"]
    assert (row.verdict, row.reason) == ("inconclusive", "no measure has a usual limit: name one of cosine, kl")
    assert "agreement" not in rows(others, GatePolicy(agreement={"cosine": "off"}))


@pytest.mark.parametrize("key", ["max_parity_error", "min_found", "min_chosen"])
def test_a_precision_that_the_report_has_not_is_inconclusive(key: str) -> None:
    policy = GatePolicy.model_validate({key: {"fp32": 0.5, "int8": 0.5}})
    found = rows(with_engine(make_report()), policy)
    (row,) = (row for name, row in found.items() if name.endswith(", int8"))
    assert (row.verdict, row.limit) == ("inconclusive", f"{key}.int8 = 0.5")
    assert "the report has fp32" in row.reason


def test_a_ratio_of_a_provider_that_knows_no_pattern_says_so() -> None:
    for limit, verdict in ((0.5, "pass"), (1.0, "inconclusive"), (2.0, "fail")):
        row = rows(make_report(), GatePolicy(min_speedup=limit))["speed-up, batch 1"]
        assert row.verdict == verdict
        assert "cpu multiplies zeros like any value, so that this is not the speed of 2:4" in row.reason


def placed(**providers: int) -> Report:
    report = make_report()
    latency = report.variants[0].latency
    assert latency is not None
    return with_variant(report, latency=latency.model_copy(update={"providers": providers}))


@pytest.mark.parametrize(
    ("providers", "wanted", "verdict"),
    [
        ({"CPUExecutionProvider": 3}, "cpu", "pass"),
        ({"TensorrtExecutionProvider": 0}, "tensorrt", "fail"),
        ({"TensorrtExecutionProvider": 1, "CPUExecutionProvider": 0}, "tensorrt", "pass"),
        ({"TensorrtExecutionProvider": 1, "CPUExecutionProvider": 1}, "tensorrt", "fail"),
        ({"NvTensorRTRTXExecutionProvider": 1}, "tensorrt-rtx", "pass"),
        ({"NvTensorRTRTXExecutionProvider": 1}, "tensorrt", "fail"),
        ({"TensorrtExecutionProvider": 1}, "tensorrt-rtx", "fail"),
        ({}, "cpu", "fail"),
    ],
)
def test_the_required_provider_ran_nodes_and_no_other_did(providers: dict[str, int], wanted: str, verdict: str) -> None:
    assert rows(placed(**providers), GatePolicy.model_validate({"required_provider": wanted}))["provider"].verdict == (
        verdict
    )


REFUSED = [
    "max_drop = true", 'max_drop = "1"', "max_drop = -1.0", "max_drop = inf", "max_drop = nan", "max_drop = {}",
    "max_drop = { top1 = true }", 'max_drop = { top1 = "-1%" }', "min = {}", "min = { top1 = true }",
    'min = { top1 = "0.5" }', "min = { top1 = nan }", "max = { loss = inf }", 'agreement = "0.9"', "agreement = -1",
    "min_coverage = false", "min_coverage = 1.1", 'min_coverage = "0.5"', "max_parity_error = inf",
    "max_parity_error = { fp32 = true }", "max_parity_error = { fp64 = 1.0 }", "max_parity_error = {}",
    "min_speedup = -1.0", "min_speedup = 0", "max_latency_ms = -0.5", "max_size_regression = inf",
    "max_latency_regression = -1", 'latency_floor_ms = "1"', "latency_floor_ms = -1",
    'required_provider = "tensorrtt"', 'required_provider = ""', "required_provider = 1",
    'required_compilation = ["9.9"]', "required_compilation = [8.6]", "required_compilation = []",
    'strict_intervals = "yes"', "strict_intervals = 1", 'off = ["layout"]', 'off = ["speed"]',
    "min_found = { fp16 = 2.0 }", "min_chosen = { fp16 = -0.1 }",
]  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_a_value_that_is_none_is_refused_with_what_is_allowed(tmp_path: Path, line: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(f"[gate]\n{line}\n")
    with pytest.raises(UsageError, match="out of range") as caught:
        load_policy(path)
    assert line.split(maxsplit=1)[0] in str(caught.value.seen)
    assert caught.value.allowed
    assert caught.value.fix


def test_the_message_lists_what_exists(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    for line, listed in (
        ('required_provider = "tensorrtt"', "'cpu', 'cuda', 'tensorrt' or 'tensorrt-rtx'"),
        ('required_compilation = ["9.9"]', "'7.5', '8.0', '8.6', '8.9' or '12.0'"),
        ('off = ["speed"]', "speed-up"),
    ):
        path.write_text(f"[gate]\n{line}\n")
        with pytest.raises(UsageError) as caught:
            load_policy(path)
        assert listed in str(caught.value.allowed)
