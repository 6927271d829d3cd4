"""Values cannot contradict themselves: a report with one figure that does not go with the others is one message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from snowsdeploy.errors import OutputError
from snowsdeploy.report.store import read_report, write_report
from snowsdeploy.values import (
    Agreement,
    DynamicAxis,
    ExportReport,
    FilePair,
    LayerSparsity,
    OnnxArtifact,
    SparsityEvidence,
    Verdict,
)
from tests.sample_report import make_report, with_engine

VARIANT = "variants.0"
LAYER = f"{VARIANT}.sparsity.layers.0"
TOP1 = f"{VARIANT}.accuracy.metrics.0"
SERIES = f"{VARIANT}.latency.series.1"

BROKEN: list[tuple[str, object, str]] = [
    # what is changed, to what, part of the message
    ("schema_version", 2, "schema version 2"),
    (f"{TOP1}.dense.items", 0, "greater than 0"),
    (f"{TOP1}.dense.items", 2**70, "less than"),
    (f"{TOP1}.dense.value", "0.9", "a valid number"),
    (f"{TOP1}.dense.value", True, "a valid number"),
    (f"{TOP1}.dense.low", None, "two ends or none"),
    (f"{TOP1}.dense.low", 0.99, "low <= value <= high"),
    (f"{TOP1}.dense.confidence", 1.0, "less than 1"),
    (f"{TOP1}.drop.high", float("-inf"), "a finite number"),
    (f"{TOP1}.drop.high", -5.0, "low <= value <= high"),
    (f"{TOP1}.drop.value", 0.2, "0.5 apart"),
    (f"{TOP1}.drop.p_value", 1.5, "less than or equal to 1"),
    (f"{TOP1}.usual_drop", -1.0, "greater than or equal to 0"),
    (f"{VARIANT}.accuracy.agreement.0.measured.value", -0.5, "low <= value <= high"),
    (f"{VARIANT}.accuracy.data.items", -1, "greater than 0"),
    (f"{VARIANT}.parity.rows.0.relative_l2", float("nan"), "a finite number"),
    (f"{VARIANT}.parity.rows.0.relative_l2", -1e-6, "greater than or equal to 0"),
    (f"{VARIANT}.parity.rows", [], "at least 1"),
    (f"{VARIANT}.latency.series", [], "at least 1"),
    (f"{VARIANT}.latency.ratios", [], "at least 1"),
    (f"{VARIANT}.latency.ratios.0.batch", 2, "one ratio a batch size"),
    (f"{VARIANT}.latency.ratios.0.speedup", 1.05, "medians of the series give 1"),
    (f"{VARIANT}.latency.ratios.0.low", float("inf"), "a finite number"),
    (f"{VARIANT}.latency.ratios.0.high", 0.5, "low <= speedup <= high"),
    (f"{VARIANT}.latency.providers.CPUExecutionProvider", -1, "greater than or equal to 0"),
    (f"{SERIES}.p50_ms", -3.0, "greater than 0"),
    (f"{SERIES}.p50_ms", 1e300, "less than or equal to"),
    (f"{SERIES}.p50_high_ms", 1.0, "p50_low_ms <= p50_ms <= p50_high_ms"),
    (f"{SERIES}.p99_ms", 1250.0, "p50_ms <= p90_ms <= p99_ms"),
    (f"{SERIES}.runs", 0, "greater than 0"),
    (f"{LAYER}.violations", 5, "layout_valid is True"),
    (f"{LAYER}.layout_valid", False, "layout_valid is False"),
    (f"{LAYER}.layout_valid", 1, "layout_valid is 1"),
    (f"{LAYER}.zeros", 0.0, "do not go with 0.00% zeros"),
    (f"{LAYER}.groups", 5, "5 groups of 4 are not 294912 weights"),
    (f"{LAYER}.axis", 7, "the shape has 4 axes"),
    (f"{LAYER}.shape.0", -256, "greater than or equal to 0"),
    (f"{VARIANT}.sparsity.weights_covered", 10**9, "weights_covered is 1000000000"),
    (f"{VARIANT}.sparsity.weights_total", -5, "weights_total is -5"),
    (f"{VARIANT}.sparsity.pattern", "4:4", "N < M"),
    (f"{VARIANT}.sparsity.pattern", "1:2", "groups of 2"),
    (f"{VARIANT}.sparsity.expected", [], "not those decided pruned"),
    (f"{VARIANT}.sparsity.sha256", "0" * 64, "the sparse file is"),
    (f"{VARIANT}.sparsity.sha256", None, "the sparse file is"),
    (f"{VARIANT}.sparse.role", "dense", "sparse.role is dense"),
    (f"{VARIANT}.sparse.sha256", "d" * 64, "they are one file"),
    (f"{VARIANT}.sparse.sha256", "abc", "pattern"),
    (f"{VARIANT}.sparse.path", "dense.onnx", "they are one file"),
    (f"{VARIANT}.sparse.precision", "fp16", "precision of dense and sparse differ"),
    (f"{VARIANT}.sparse.size_bytes", 0, "greater than 0"),
    (f"{VARIANT}.sparse.output_names", [], "at least 1"),
    ("prune.pattern", "4:4", "N < M"),
    ("prune.pattern", "1:4", "the run is 1:4"),
    ("prune.decisions", [], "at least 1"),
    ("prune.decisions.0.prunable", False, "no reason why not"),
    ("prune.decisions.0.weight", None, "a weight that has a name"),
    ("prune.decisions.0.name", "another", "not those decided pruned: another"),
    ("prune.solves.0.loss_final", float("nan"), "a finite number"),
    ("prune.solves.0.kept", 3, "more than the total of 2"),
    ("prune.calibration_items", [], "at least 1"),
    ("prune.calibration_items", [1], "calibration_items lists 1"),
    ("preprocessing.std.0", 0.0, "greater than 0"),
    ("preprocessing.mean.0", float("inf"), "a finite number"),
    ("environment.cores", 0, "greater than 0"),
    ("seconds.prune", -1.0, "greater than or equal to 0"),
    ("signature.inputs", [], "at least 1"),
]


def changed(content: dict[str, Any], place: str, value: object) -> dict[str, Any]:
    """JSON with one value replaced; the place is keys and positions with dots between them."""
    copy: dict[str, Any] = json.loads(json.dumps(content))
    *path, last = place.split(".")
    at: Any = copy
    for key in path:
        at = at[int(key)] if isinstance(at, list) else at[key]
    at[int(last) if isinstance(at, list) else last] = value
    return copy


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(make_report().model_dump_json())
    return found


@pytest.mark.parametrize(("place", "value", "message"), BROKEN, ids=[f"{p}={str(v)[:20]}" for p, v, _ in BROKEN])
def test_one_figure_that_does_not_go_with_the_others_is_one_message(
    tmp_path: Path, content: dict[str, Any], place: str, value: object, message: str
) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(changed(content, place, value)))
    with pytest.raises(OutputError) as caught:
        read_report(path)
    assert message in str(caught.value)
    assert all((caught.value.seen, caught.value.allowed, caught.value.fix))


def test_a_report_without_its_schema_version_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({k: v for k, v in content.items() if k != "schema_version"}))
    with pytest.raises(OutputError, match="not a report"):
        read_report(path)


def test_what_is_computed_is_written_and_may_be_left_out(tmp_path: Path, content: dict[str, Any]) -> None:
    row = content["variants"][0]["sparsity"]["layers"][0]
    assert row["layout_valid"] is True
    assert content["variants"][0]["sparsity"]["weights_covered"] == 2 * 256 * 128 * 9
    del row["layout_valid"]
    path = tmp_path / "report.json"
    path.write_text(json.dumps(content))
    row["layout_valid"] = True
    read, made = (report.variants[0].sparsity for report in (read_report(path), make_report()))
    assert read is not None
    assert made is not None
    assert read.layers == made.layers


def test_counts_of_an_engine_are_those_of_the_layers(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(with_engine(make_report()), path)
    told = json.loads(path.read_text())
    assert read_report(path).variants[0].engine is not None
    for place, value in (("found", 1), ("chosen", 2), ("chosen_unknown", 1), ("pruned", 3), ("eligible", 9)):
        path.write_text(json.dumps(changed(told, f"{VARIANT}.engine.{place}", value)))
        with pytest.raises(OutputError, match="contradicts itself"):
            read_report(path)


def test_a_verdict_is_what_its_rules_give() -> None:
    rule = {"rule": "layout", "measured": "0", "limit": "2", "verdict": "fail"}
    assert Verdict.model_validate({"verdict": "fail", "rules": [rule]}).rules
    for wrong in ("pass", "inconclusive"):
        with pytest.raises(ValueError, match="its rules give fail"):
            Verdict.model_validate({"verdict": wrong, "rules": [rule]})
    with pytest.raises(ValueError, match="at least 1"):
        Verdict.model_validate({"verdict": "pass", "rules": []})


def artifact(role: str, precision: str = "fp32") -> OnnxArtifact:
    names = {"input_names": ["x"], "output_names": ["y"]}
    numbers = {"sha256": role[0].replace("s", "5") * 64, "size_bytes": 9, "opset": 20, "precision": precision}
    return OnnxArtifact.model_validate({"path": f"{role}-{precision}.onnx", "role": role, **numbers, **names})


def test_an_export_has_what_was_asked_for_with_fp32_first() -> None:
    full, half = (FilePair(dense=artifact("dense", p), sparse=artifact("sparse", p)) for p in ("fp32", "fp16"))
    assert ExportReport(pairs=(full, half), asked=("fp16",)).judged == (half,)
    for pairs, asked, message in (
        ((), ("fp32",), "at least 1"),
        ((half, full), ("fp16",), "fp32 first"),
        ((full, full), ("fp32",), "each precision has one"),
        ((full,), ("fp16",), "asked names fp16"),
        ((full,), (), "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            ExportReport.model_validate({"pairs": pairs, "asked": asked})
    with pytest.raises(ValueError, match="precision of dense and sparse differ"):
        FilePair(dense=artifact("dense"), sparse=artifact("sparse", "fp16"))


@pytest.mark.parametrize(
    ("pattern", "groups", "violations", "zeros", "possible"),
    [
        ("2:4", 4, 0, 0.5, True),
        ("2:4", 4, 0, 1.0, True),
        ("2:4", 4, 0, 0.4375, False),  # 9 of 16 are not zero, and 4 groups hold 8
        ("2:4", 4, 1, 0.4375, True),
        ("2:4", 4, 4, 0.5, False),  # 4 violations are 12 that are not zero, at least
        ("2:4", 4, 4, 0.0, True),
        ("2:4", 4, 1, 0.0, False),  # of 16, 3 groups hold 6 and the one 4
        ("2:4", 0, 0, 0.0, True),  # nothing was checked
        ("50%", 1, 0, 0.5, True),
        ("50%", 1, 0, 0.4375, False),
        ("50%", 1, 1, 0.4375, True),
        ("50%", 4, 0, 0.5, False),
    ],
)
def test_violations_and_zeros_go_together(
    pattern: str, groups: int, violations: int, zeros: float, possible: bool
) -> None:
    row = LayerSparsity(
        name="a", tensor="a", op="Gemm", shape=(4, 4), axis=1, zeros=zeros, groups=groups, violations=violations
    )
    made = {"pattern": pattern, "file": Path("a.onnx"), "layers": (row,)}
    if possible:
        assert SparsityEvidence.model_validate(made).weights_total == 16
        return
    with pytest.raises(ValueError, match=r"zeros|groups of"):
        SparsityEvidence.model_validate(made)


def test_a_layer_of_its_own_share_is_held_to_that() -> None:
    row = LayerSparsity(name="a", tensor="a", op="Gemm", shape=(4, 4), axis=1, zeros=0.25, groups=1, violations=0)
    made = {"pattern": "50%", "file": Path("a.onnx"), "layers": (row,)}
    assert SparsityEvidence.model_validate({**made, "shares": {"a": 0.25}}).coverage == 1.0
    with pytest.raises(ValueError, match="do not go with"):
        SparsityEvidence.model_validate(made)


def test_a_share_is_from_0_to_1() -> None:
    made = {"name": "a", "label": "a", "measured": {"value": 1.5, "items": 3}}
    assert Agreement.model_validate({**made, "unit": ""}).measured.value == 1.5
    with pytest.raises(ValueError, match="a share is from 0 to 1"):
        Agreement.model_validate(made)


def test_ends_of_an_axis_are_ordered() -> None:
    with pytest.raises(ValueError, match="smallest <= largest"):
        DynamicAxis(input="x", axis=2, name="h", smallest=9, largest=8)
