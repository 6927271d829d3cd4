"""What people read: complete, at most 80 columns, plain where there is no terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from snowsdeploy.display import ConsoleObserver
from snowsdeploy.errors import DataError
from snowsdeploy.gate.judge import judge
from snowsdeploy.runtime.doctor import diagnose
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import Permutation, PermutedGroup
from snowsdeploy_cli.console import make_console, print_error, say
from snowsdeploy_cli.render import print_diagnosis, print_evidence, print_pruning, print_summary
from tests.sample_report import NAMES, make_report, with_engine, with_variant


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    for name in ("COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def printed(capsys) -> str:
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    return text


def summary(capsys, **numbers) -> str:
    report = make_report(**numbers)
    report = report.model_copy(update={"verdict": judge(report, GatePolicy(min_speedup=1.05))})
    print_summary(make_console(), report, Path("run"))
    return printed(capsys)


def test_summary_says_what_a_permutation_gained_and_what_stood_still(capsys):
    groups = tuple(PermutedGroup(channels=64, layers=NAMES, kept_before=b, kept_after=0.93) for b in (0.9, 0.92))
    refused = {f"stages.{i}.conv": "fixed by cumsum (cumsum)" for i in range(6)}
    done = Permutation(score="inputs", groups=groups, refused=refused, error=2.5e-7, seconds=12.4)
    report = make_report()
    prune = report.prune.model_copy(update={"permutation": done})
    print_summary(make_console(), report.model_copy(update={"prune": prune}), Path("run"))
    flat = " ".join(printed(capsys).split())
    assert "128 channels in 2 groups permuted: masks keep 91.00% -> 93.00% of the score (inputs)" in flat
    assert "outputs moved by 2.5e-07, 12 s" in flat
    assert "not permuted, fixed by cumsum (cumsum): stages.0.conv, stages.1.conv, stages.2.conv, stages.3.conv" in flat
    assert "and 2 more" in flat
    print_summary(make_console(), report, Path("run"))
    assert "permuted" not in printed(capsys)


def test_summary_has_every_part(capsys):
    text = summary(capsys, sparse_right=890, speedup=2.0)
    flat = " ".join(text.split())
    for part in (
        "resnet20: 2 of 8 layers pruned to 2:4",
        "dense, depthwise: stages.0.dw, stages.1.dw, stages.2.dw, stages.3.dw and 2 more",
        "2 of 2 hold the layout: 99.0%",
        "at most 3.0e-07",
        "91.70%",
        "89.00%",
        "McNemar p = 0.4",
        "42 nodes on CPUExecutionProvider",
        "2.00 [1.90, 2.10]",
        "multiplies zeros like any value",
        "warning: 8 images",
        "peak memory 1.0 GiB",
        "Written to run",
    ):
        assert part in flat
    assert text.rstrip().splitlines()[-1] == "FAILED: at least one gate is not met"


@pytest.mark.parametrize(("speedup", "last"), [(2.0, "PASSED"), (0.5, "FAILED"), (1.05, "INCONCLUSIVE")])
def test_verdict_is_the_last_line(capsys, speedup, last):
    assert summary(capsys, speedup=speedup).rstrip().splitlines()[-1].startswith(last)


def test_without_labels_no_accuracy_is_invented(capsys):
    report = make_report()
    assert report.variants[0].accuracy is not None
    gone = {"metrics": ()}
    report = with_variant(report, accuracy=report.variants[0].accuracy.model_copy(update=gone))
    print_summary(make_console(), report, Path("run"))
    text = printed(capsys)
    assert "without labels: agreement with the dense model, no accuracy" in " ".join(text.split())
    assert "top-1 " not in text


def test_layer_tables_fit(capsys):
    report = make_report()
    assert report.variants[0].sparsity is not None
    print_evidence(make_console(), report.variants[0].sparsity)
    print_pruning(make_console(), report.prune, Path("run"))
    text = printed(capsys)
    assert text.count("valid") == len(NAMES)
    assert "2 layers pruned to 2:4 in 12 s" in text


def test_what_an_engine_made_of_the_layers_is_shown(capsys):
    (variant,) = with_engine(make_report()).variants
    assert variant.sparsity is not None
    print_evidence(make_console(), variant.sparsity, variant.engine)
    print_summary(make_console(), with_engine(make_report()), Path("run"))
    text = printed(capsys)
    flat = " ".join(text.split())
    assert flat.count("found 2 of 2 pruned layers eligible and chose sparse kernels for 1.") == 2
    assert flat.count("a note on <names>") == 2
    assert [len(re.findall(rf"\b{word}\b", text[: text.index("hold 2:4")])) for word in ("yes", "no")] == [3, 1]


def test_diagnosis_fits(capsys):
    print_diagnosis(make_console(), diagnose())
    assert "cpu" in printed(capsys)


def test_paths_are_never_broken(capsys):
    path = "/a/very/long/path/" + "x" * 100
    say(make_console(), f"Written to {path}: model.onnx")
    assert path in capsys.readouterr().out


def test_markup_in_names_is_printed_as_it_is(capsys):
    say(make_console(), "imagenet[bold][0::2][/]")
    assert capsys.readouterr().out == "imagenet[bold][0::2][/]\n"


def test_width_follows_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    say(make_console(), "word " * 30)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40


def test_error_parts_are_aligned(capsys):
    error = DataError("the folder has no images", seen="photos[0::2]", allowed="one folder a class", fix="check --data")
    print_error(error)
    assert capsys.readouterr().err.splitlines() == [
        "error: the folder has no images",
        "  seen:    photos[0::2]",
        "  allowed: one folder a class",
        "  try:     check --data",
    ]


def test_plain_progress_has_a_line_a_layer_and_time_left(capsys):
    with ConsoleObserver(make_console(stderr=True)) as observer:
        observer.stage("prune", "2:4")
        observer.advance(1, 3, "conv1: loss 0.5 -> 0.1, 1.0 s")
        observer.advance(3, 3, "conv3: loss 0.4 -> 0.2, 1.0 s")
        observer.stage("validate")
        for done in range(1, 51):
            observer.advance(done, 50)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "prune: 2:4"
    assert lines[1].startswith("  [1/3] conv1: loss 0.5 -> 0.1, 1.0 s; about 0 s left")
    assert lines[2] == "  [3/3] conv3: loss 0.4 -> 0.2, 1.0 s"
    assert lines[3] == "validate"
    assert lines[4].startswith("  50/50 in ")
    assert len(lines) == 5


def test_a_long_step_says_what_it_does_when_nothing_was_said_for_a_while(capsys, monkeypatch):
    with ConsoleObserver(make_console(stderr=True)) as observer:
        observer.doing("fc1: Newton step 1 of 2, loss 0.3", 1.3, 4)
        monkeypatch.setattr("snowsdeploy.display._SILENCE", -1.0)
        observer.doing("fc1: Newton step 2 of 2, loss 0.2", 1.6, 4)
    assert capsys.readouterr().err == "  [1/4] fc1: Newton step 2 of 2, loss 0.2\n"


def test_quiet_keeps_warnings(capsys):
    with ConsoleObserver(make_console(stderr=True), quiet=True) as observer:
        observer.stage("prune")
        observer.message("conv1: pruned")
        observer.advance(1, 1, "conv1")
        observer.doing("conv2: Newton step", 0.5, 1)
        observer.warn("same images")
    assert capsys.readouterr().err == "warning: same images\n"


def test_terminal_has_a_bar_and_the_same_lines():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, highlight=False)
    with ConsoleObserver(console) as observer:
        observer.stage("prune", "2:4")
        observer.advance(1, 2, "conv1: loss 0.5 -> 0.1, 1.0 s")
        observer.doing("conv2: Newton step 1 of 4", 1.2, 2)
        observer._progress.refresh()
        observer.stage("validate")
    text = stream.getvalue()
    assert "prune: 2:4" in text
    assert "[1/2] conv1: loss 0.5 -> 0.1, 1.0 s; about 0 s left" in text
    assert "━" in text
    assert "conv2: Newton step 1 of 4" in text
    assert text.endswith("\x1b[2K")  # the bar is gone at the end
