"""The example's policy against reports that lack something: each verdict, and what the rows say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from snowsdeploy.report.store import write_report
from snowsdeploy.values import Compilation, Precision, Report, Variant
from snowsdeploy_cli.app import app
from tests.sample_report import make_report, unlabelled, with_variant

POLICY = Path(__file__).resolve().parents[2] / "examples" / "ci" / "policy.toml"
COMPILED = Compilation(
    compiler="TensorRT-RTX 1.0", capabilities=("8.6", "8.9"), accepted=True, engine_bytes=9, seconds=1.0
)
RELATIVE = {"accuracy against baseline", "latency against baseline"}


def with_all_precisions() -> Report:
    """What the workflow measures; the sparse model is as right as the dense one."""
    report = with_variant(make_report(sparse_right=922), compilation=COMPILED)
    (variant,) = report.variants
    names: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    return report.model_copy(update={"variants": tuple(renamed(variant, name) for name in names)})


def renamed(variant: Variant, precision: Precision) -> Variant:
    sides = {side: getattr(variant, side).model_copy(update={"precision": precision}) for side in ("dense", "sparse")}
    return variant.model_copy(update=sides)


def gate(folder: Path, report: Report, baseline: Report | None = None) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit code, and of each row that does not pass its verdict and reason."""
    write_report(report, folder / "report.json")
    options = ["--policy", str(POLICY), "--json"]
    if baseline is not None:
        write_report(baseline, folder / "old.json")
        options += ["--baseline", str(folder / "old.json")]
    done = CliRunner().invoke(app, ["gate", str(folder / "report.json"), *options])
    rows = json.loads(done.stdout)["rules"]
    return done.exit_code, {r["rule"]: (r["verdict"], r["reason"]) for r in rows if r["verdict"] != "pass"}


def test_everything_is_there(tmp_path: Path) -> None:
    report = with_all_precisions()
    assert gate(tmp_path, report, report) == (0, {})


def test_without_a_baseline(tmp_path: Path) -> None:
    code, rows = gate(tmp_path, with_all_precisions())
    assert (code, set(rows)) == (5, RELATIVE)
    assert all(verdict == "inconclusive" and "pass --baseline" in reason for verdict, reason in rows.values())


def test_of_one_precision(tmp_path: Path) -> None:
    whole = with_all_precisions()
    code, rows = gate(tmp_path, whole.model_copy(update={"variants": whole.variants[:1]}), whole)
    assert (code, set(rows)) == (5, {"parity, fp16", "parity, int8", "baseline, fp16", "baseline, int8"})
    assert all("the report has fp32" in reason for _, reason in rows.values())


def test_without_labels(tmp_path: Path) -> None:
    whole = with_all_precisions()
    code, rows = gate(tmp_path, unlabelled(whole), whole)
    assert code == 5
    assert rows["accuracy drop, fp32"] == (
        "inconclusive",
        "the evaluation images have no labels, so that there is no metric",
    )
    assert rows["accuracy against baseline, int8"] == ("inconclusive", "no metric is in both reports")
    assert {verdict for verdict, _ in rows.values()} == {"inconclusive"}


def test_of_a_machine_without_a_compiler(tmp_path: Path) -> None:
    whole = with_all_precisions()
    variants = tuple(v.model_copy(update={"compilation": None}) for v in whole.variants)
    code, rows = gate(tmp_path, whole.model_copy(update={"variants": variants}), whole)
    missing = ("inconclusive", "compilation was not tried; pass --compile-for")
    assert (code, rows) == (5, {f"compilation, {name}": missing for name in ("fp32", "fp16", "int8")})


def test_a_speed_up_on_a_cpu(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.read_text(encoding="utf-8").replace("[gate]", "[gate]\nmin_speedup = 1.2", 1))
    write_report(with_all_precisions(), tmp_path / "report.json")
    done = CliRunner().invoke(app, ["gate", str(tmp_path / "report.json"), "--policy", str(policy), "--json"])
    rows = {r["rule"]: r for r in json.loads(done.stdout)["rules"]}
    assert (done.exit_code, rows["speed-up, batch 1, fp16"]["verdict"]) == (4, "fail")
    assert "cpu multiplies zeros like any value" in rows["speed-up, batch 1, fp16"]["reason"]


@pytest.mark.parametrize("part", ["accuracy", "parity", "latency", "sparsity"])
def test_a_measurement_that_was_not_made(tmp_path: Path, part: str) -> None:
    whole = with_all_precisions()
    variants = tuple(v.model_copy(update={part: None}) for v in whole.variants)
    code, rows = gate(tmp_path, whole.model_copy(update={"variants": variants}), whole)
    assert code == 5
    assert rows
    assert {verdict for verdict, _ in rows.values()} == {"inconclusive"}
