"""Several reports on one page."""

from __future__ import annotations

import re

from snowsdeploy.gate.judge import judge
from snowsdeploy.report.compare import compared_files, differences, render_comparison
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import Report
from tests.sample_report import make_report, with_variant


def judged(report: Report) -> Report:
    return report.model_copy(update={"verdict": judge(report, GatePolicy())})


def runs():
    slow = make_report(sparse_right=915)
    prune = slow.prune.model_copy(update={"seconds": 600.0, "solver": {**slow.prune.solver, "effort": "max"}})
    return {"default": judged(make_report()), "max effort": judged(slow.model_copy(update={"prune": prune}))}


def test_every_precision_of_every_run_has_a_row_and_the_plot_a_point():
    text = render_comparison(runs())
    for part in ("91.20%", "91.50%", "max effort", "Accuracy against effort", "seconds of pruning"):
        assert part in text
    assert [row.name for row in compared_files(runs())] == ["default", "max effort"]


def test_a_failed_run_is_shown_as_failed():
    failed = judged(make_report(sparse_right=500))
    assert "Failed" in render_comparison({"a": failed, "b": failed})


def test_only_settings_that_differ_are_listed():
    found = differences(runs())
    assert found.names == ("default", "max effort")
    assert dict(found.rows)["effort"][1] == "max"
    assert "pattern" not in dict(found.rows)


def test_what_does_not_compare_is_said():
    first = make_report()
    other = first.model_copy(update={"source": first.source.model_copy(update={"sha256": "another"})})
    accuracy = first.variants[0].accuracy
    assert accuracy is not None
    data = accuracy.data.model_copy(update={"fingerprint": "others"})
    other = with_variant(other, accuracy=accuracy.model_copy(update={"data": data}))
    text = render_comparison({"a": first, "b": other})
    assert "different checkpoints" in text
    assert "different images" in text


def test_runs_without_labels_or_latency_render():
    bare = with_variant(make_report(), **dict.fromkeys(("accuracy", "latency", "parity", "sparsity")))
    text = render_comparison({"a": bare, "b": bare})
    assert "Accuracy against effort" not in text
    assert not re.search(r"(?:src|href)=\"(?!#|data:)[^\"]", text)
