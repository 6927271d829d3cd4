"""The shares of layers that an engine found and chose: what is unknown never decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from snowsdeploy.errors import UsageError
from snowsdeploy.gate.judge import judge
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.read import load_policy
from snowsdeploy.values import Report, RuleResult
from tests.sample_report import make_report, with_engine, with_variant


def rules(report: Report, **limits: object) -> dict[str, RuleResult]:
    found = judge(report, GatePolicy.model_validate(limits))
    return {rule.rule: rule for rule in found.rules if rule.rule.startswith("engine")}


@pytest.mark.parametrize(
    ("limit", "unknown", "verdict", "measured"),
    [
        (0.5, 0, "pass", "1 of 2 layers"),
        (0.0, 0, "pass", "1 of 2 layers"),
        (0.51, 0, "fail", "1 of 2 layers"),
        (0.5, 1, "pass", "1 of 2 layers, 1 unknown"),
        (1.0, 1, "inconclusive", "1 of 2 layers, 1 unknown"),
    ],
)
def test_chosen(limit: float, unknown: int, verdict: str, measured: str) -> None:
    rule = rules(with_engine(make_report(), chosen_unknown=unknown), min_chosen=limit)["engine chose"]
    assert (rule.verdict, rule.measured) == (verdict, measured)


@pytest.mark.parametrize(
    ("limit", "unknown", "verdict"), [(1.0, 0, "pass"), (1.0, 1, "inconclusive"), (0.5, 1, "pass")]
)
def test_found(limit: float, unknown: int, verdict: str) -> None:
    found = rules(with_engine(make_report(), found_unknown=unknown), min_found=limit)
    assert found["engine found"].verdict == verdict


def test_what_is_missing_says_what_to_do() -> None:
    found = rules(make_report(), min_found=0.5, min_chosen=0.5)
    assert {rule.verdict for rule in found.values()} == {"inconclusive"}
    assert all("pass --engine-log and --engine-layers" in rule.reason for rule in found.values())
    partly = rules(with_engine(make_report(), chosen_unknown=1), min_chosen=1.0)["engine chose"]
    assert "of 1 layers it is unknown; also pass --engine-layers: a note" in partly.reason


def test_nothing_pruned_is_nothing_to_judge() -> None:
    engine = with_engine(make_report()).variants[0].engine
    assert engine is not None
    empty = engine.model_copy(update=dict.fromkeys(("pruned", "eligible", "found", "chosen"), 0))
    rule = rules(with_variant(make_report(), engine=empty), min_chosen=0.5)["engine chose"]
    assert (rule.verdict, rule.reason) == ("inconclusive", "no layer is pruned")


def test_off_by_default_and_for_precisions_that_are_not_named() -> None:
    report = with_engine(make_report())
    assert rules(report) == {}
    assert rules(report, min_chosen={"fp16": 1.0}) == {}
    assert rules(report, min_chosen={"fp32": 1.0})["engine chose"].verdict == "fail"


def test_policy_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("[gate]\nmin_found = 0.9\nmin_chosen = { fp16 = 0.5, int8 = 0.25 }\n", encoding="utf-8")
    policy = load_policy(path)
    assert (policy.found_limit("int8"), policy.chosen_limit("int8"), policy.chosen_limit("fp32")) == (0.9, 0.25, None)
    path.write_text("[gate]\nmin_chosen = 50\n", encoding="utf-8")
    with pytest.raises(UsageError, match="out of range"):
        load_policy(path)
