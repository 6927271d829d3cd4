"""JSON round trip and the Markdown summary."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest

from snowsdeploy.errors import OutputError
from snowsdeploy.gate.judge import judge
from snowsdeploy.report.html import render_html
from snowsdeploy.report.markdown import render_markdown
from snowsdeploy.report.store import read_report, write_report
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import Package, SelectionReport
from tests.sample_report import make_report, with_variant


def test_a_report_comes_back_as_it_was(tmp_path: Path) -> None:
    report = make_report()
    report = report.model_copy(update={"verdict": judge(report, GatePolicy())})
    path = tmp_path / "report.json"
    write_report(report, path)
    assert read_report(path).json_in(tmp_path) == report.json_in(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 99}', '{"schema_version": 1}'])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(OutputError, match="not a report"):
        read_report(path)


def test_a_missing_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be read"):
        read_report(tmp_path / "none.json")


def test_the_summary_begins_with_the_verdict_and_holds_the_figures() -> None:
    report = make_report()
    report = report.model_copy(update={"verdict": judge(report, GatePolicy()), "warnings": ("look here",)})
    text = render_markdown(report)
    assert text.startswith("# Passed") or text.startswith("# Failed")
    for part in ("| layout |", "Warning: look here", "91.20%", "McNemar", "snowsdeploy prune-export model.pth"):
        assert part in text
    for decision in report.prune.decisions:
        assert decision.name in text


def test_how_the_masks_were_chosen_is_in_both_renderings() -> None:
    selection = SelectionReport(
        settings={"gradients": 1000, "damping": 1e-05},
        threshold="global",
        steps=("60%, 256 gradients of one image", "90%, 256 gradients of one image"),
        labels="sampled",
        seconds=12,
    )
    report = make_report()
    report = report.model_copy(update={"prune": report.prune.model_copy(update={"selection": selection})})
    for text in (html.unescape(render_html(report)), render_markdown(report)):
        assert "one threshold for all layers; gradients 1000, damping 1e-05; labels sampled from the model" in text
    assert "60%, 256 gradients of one image -> 90%, 256 gradients of one image in 12 s" in render_markdown(report)


def test_the_summary_of_a_report_with_nothing_measured() -> None:
    bare = with_variant(make_report(), **dict.fromkeys(("accuracy", "latency", "parity", "sparsity")))
    assert render_markdown(bare).startswith("# Not judged")


def test_further_files_are_listed_in_both_renderings() -> None:
    report = make_report()
    serving = report.variants[0].sparse.model_copy(update={"path": Path("run/serving.onnx")})
    package = Package(
        format="tensorrt", folder=Path("run/tensorrt"), files=("build.sh",), notes=("no engine was built",)
    )
    report = report.model_copy(update={"serving": (serving,), "packages": (package,)})
    for text in (render_markdown(report), render_html(report)):
        for part in ("serving.onnx", "tensorrt/", "no engine was built"):
            assert part in text


def test_a_report_that_lacks_a_part_says_which(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(make_report(), path)
    content = json.loads(path.read_text())
    del content["commands"]
    path.write_text(json.dumps(content))
    with pytest.raises(OutputError, match="not a report that this version reads") as refused:
        read_report(path)
    assert str(refused.value.seen).endswith(": no commands")
    assert refused.value.allowed == "all of schema version 1"
