"""Broken and hostile reports, policies and settings on the command line: one message and its code, never green."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from snowsdeploy_cli.app import app
from tests.sample_report import make_report

Content = dict[str, Any]
V = "variants.0"
LAYERS = f"{V}.sparsity.layers"


def run(*arguments: object) -> Result:
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found


def put(content: Content, place: str, value: object) -> None:
    """Set what keys and positions with dots between them lead to; `*` is every position."""
    key, _, rest = place.partition(".")
    at: Any = content
    for index in range(len(at)) if key == "*" else [int(key) if isinstance(at, list) else key]:
        if rest:
            put(at[index], rest, value)
        else:
            at[index] = value


def edited(**places: object) -> Callable[[Content], None]:
    def edit(content: Content) -> None:
        for place, value in places.items():
            put(content, place, value)

    return edit


def no_layer_is_pruned(content: Content) -> None:
    for decision in content["prune"]["decisions"]:
        decision.update(prunable=False, reason=decision["reason"] or "kept dense")
    content["variants"][0]["sparsity"]["expected"] = []


def bad_layer_is_dropped(content: Content) -> None:
    content["variants"][0]["sparsity"]["layers"][0].update(violations=5, layout_valid=False, zeros=0.49)
    content["prune"]["decisions"].pop(0)


def sparse_is_the_dense_file(content: Content) -> None:
    content["variants"][0]["sparse"] = content["variants"][0]["dense"]


def good_row_then_nan(content: Content) -> None:
    rows = content["variants"][0]["parity"]["rows"]
    rows.append({**rows[0], "relative_l2": float("nan")})


def deep(content: Content) -> None:
    nested: Any = []
    for _ in range(500):
        nested = [nested]
    content["warnings"] = nested


def no_labels(content: Content) -> None:
    content["variants"][0]["accuracy"]["metrics"] = []
    content["variants"][0]["accuracy"]["data"]["labelled"] = False


def labels_without_a_metric(content: Content) -> None:
    content["variants"][0]["accuracy"]["metrics"] = []


def nothing(content: Content) -> None:
    del content


TOP1 = f"{V}.accuracy.metrics.0"
REPORTS: list[tuple[str, Callable[[Content], None], str, int]] = [
    # name, what is edited, the policy, the exit code
    ("nothing", nothing, "", 0),
    ("proportion of 0 items", edited(**{f"{TOP1}.sparse.items": 0}), "", 3),
    ("proportion of 0 items, min", edited(**{f"{TOP1}.sparse.items": 0}), "min = { top1 = 0.1 }", 3),
    ("drop -Infinity", edited(**{f"{TOP1}.drop.high": float("-inf")}), "", 3),
    ("interval upside down", edited(**{f"{TOP1}.drop.low": 9.0, f"{TOP1}.drop.high": -9.0}), "", 3),
    ("NaN after a good row", good_row_then_nan, "", 3),
    ("parity below 0", edited(**{f"{V}.parity.rows.0.relative_l2": -1.0}), "", 3),
    ("no series", edited(**{f"{V}.latency.series": []}), "", 3),
    ("ratio of a batch without series", edited(**{f"{V}.latency.ratios.0.batch": 77}), "", 3),
    ("speed-up from Infinity", edited(**{f"{V}.latency.ratios.0.low": float("inf")}), "min_speedup = 2.0", 3),
    ("latency below 0", edited(**{f"{V}.latency.series.1.p50_ms": -1.0}), "max_latency_ms = 1.0", 3),
    ("latency huge", edited(**{f"{V}.latency.series.*.p99_ms": 1e308}), "", 3),
    ("size is a text", edited(**{f"{V}.sparse.size_bytes": "9"}), "", 3),
    ("deep", deep, "", 3),
    (
        "every layer broken beside its word",
        edited(**{f"{LAYERS}.*.violations": 73728, f"{LAYERS}.*.zeros": 0.0}),
        "",
        3,
    ),
    ("5 violations beside its word", edited(**{f"{LAYERS}.0.violations": 5}), "", 3),
    ("no layer is decided pruned", no_layer_is_pruned, "", 4),
    ("the bad layer is dropped from the decisions", bad_layer_is_dropped, "", 3),
    ("evidence of 4:4", edited(**{f"{V}.sparsity.pattern": "4:4"}), "", 3),
    ("evidence of 1:4", edited(**{f"{V}.sparsity.pattern": "1:4"}), "", 3),
    ("both say 4:4", edited(**{f"{V}.sparsity.pattern": "4:4", "prune.pattern": "4:4"}), "", 3),
    (
        "both say 3:4, which the layers hold as well",
        edited(**{f"{V}.sparsity.pattern": "3:4", "prune.pattern": "3:4"}),
        "",
        0,  # true of the file, and the table says 3:4
    ),
    ("weights below 0", edited(**{f"{V}.sparsity.weights_covered": -5, f"{V}.sparsity.weights_total": -5}), "", 3),
    ("sparse is the dense file", sparse_is_the_dense_file, "", 3),
    ("no labels, a drop is named", no_labels, "max_drop = 1.0", 5),
    ("no labels, nothing is named", no_labels, "", 0),
    ("labels, and no metric", labels_without_a_metric, "", 5),
    ("a precision that is not there", nothing, "min_chosen = { fp16 = 0.5 }", 5),
    ("a parity of a precision that is not there", nothing, "max_parity_error = { fp32 = 1e-4, int8 = 0.2 }", 5),
    ("a regression without a baseline", nothing, "max_metric_regression = { top1 = 0.5 }", 5),
    ("a compiler that was not asked", nothing, 'required_compilation = ["8.6"]', 5),
    (
        "a provider with 0 nodes",
        edited(**{f"{V}.latency.providers": {"TensorrtExecutionProvider": 0}}),
        'required_provider = "tensorrt"',
        4,
    ),
    (
        "TensorRT-RTX",
        edited(**{f"{V}.latency.providers": {"NvTensorRTRTXExecutionProvider": 9}}),
        'required_provider = "tensorrt-rtx"',
        0,
    ),
    ("a stored verdict", edited(verdict={"verdict": "pass", "rules": []}), "", 3),
]


@pytest.mark.parametrize(("edit", "policy", "code"), [row[1:] for row in REPORTS], ids=[row[0] for row in REPORTS])
def test_report(tmp_path: Path, edit: Callable[[Content], None], policy: str, code: int) -> None:
    content: Content = json.loads(make_report().model_dump_json())
    edit(content)
    (tmp_path / "report.json").write_text(json.dumps(content))
    (tmp_path / "policy.toml").write_text(f"[gate]\n{policy}\n")
    found = run("gate", tmp_path / "report.json", "--policy", tmp_path / "policy.toml")
    assert found.exit_code == code, found.output
    if code == 3:
        assert "seen:" in found.output
        assert "allowed:" in found.output
        assert "try:" in found.output
        assert run("report", tmp_path / "report.json").exit_code == 3


BASELINES: list[tuple[str, Callable[[Content], None], int]] = [
    ("itself", nothing, 0),
    ("size 0", edited(**{f"{V}.sparse.size_bytes": 0}), 3),
    ("no series", edited(**{f"{V}.latency.series": []}), 3),
    ("another model", edited(**{"source.arch": "vit", "source.source": "vit.pth"}), 3),
    ("another evaluation set", edited(**{f"{V}.accuracy.data.fingerprint": "others"}), 3),
    ("another schema", edited(schema_version=0), 3),
    ("other batches", edited(**{f"{V}.latency.{part}.*.size": "8x8" for part in ("series", "ratios")}), 5),
]


@pytest.mark.parametrize(("edit", "code"), [row[1:] for row in BASELINES], ids=[row[0] for row in BASELINES])
def test_baseline(tmp_path: Path, edit: Callable[[Content], None], code: int) -> None:
    content: Content = json.loads(make_report().model_dump_json())
    (tmp_path / "report.json").write_text(json.dumps(content))
    edit(content)
    (tmp_path / "old.json").write_text(json.dumps(content))
    (tmp_path / "policy.toml").write_text("[gate]\nmax_latency_regression = 5.0\n")
    policy = ("--policy", tmp_path / "policy.toml")
    found = run("gate", tmp_path / "report.json", *policy, "--baseline", tmp_path / "old.json")
    assert found.exit_code == code, found.output
    if code == 3:
        assert "--baseline" in found.output


def test_a_summary_of_another_machine_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.json").write_text(make_report().model_dump_json())
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/nowhere/step_summary")
    found = run("gate", tmp_path / "report.json")
    assert (found.exit_code, "PASSED" in found.stdout) == (0, True)
    assert "warning: GITHUB_STEP_SUMMARY /nowhere/step_summary cannot be written" in found.stderr


@pytest.mark.parametrize("option", ["--junit", "--benchmark"])
def test_a_file_that_was_asked_for_and_cannot_be_written_is_no_pass(tmp_path: Path, option: str) -> None:
    (tmp_path / "report.json").write_text(make_report().model_dump_json())
    (tmp_path / "policy.toml").write_text("[gate]\nmin_coverage = 1.0\n")
    for policy, code in (((), 3), (("--policy", tmp_path / "policy.toml"), 4)):
        found = run("gate", tmp_path / "report.json", *policy, option, tmp_path / "none" / "x")
        assert (found.exit_code, "ED" in found.stdout) == (code, True)
        assert f"warning: {option} {tmp_path}/none/x cannot be written" in found.stderr.replace("\n", "")


POLICIES = {
    "a truth value for a number": "max_drop = true",
    "false for a share": "min_coverage = false",
    "inf": "max_parity_error = inf",
    "inf in percent": "max_size_regression = inf",
    "a provider with a slip": 'required_provider = "tensorrtt"',
    "an empty provider": 'required_provider = ""',
    "a text for a truth value": 'strict_intervals = "yes"',
    "a deep array": f"max_drop = {'[' * 5000}{']' * 5000}",
    "a deep table": f"max_drop = {'{a=' * 5000}1{'}' * 5000}",
    "an escape in a key": '"\\u001b[31mmax_drop\\u001b]0;title\\u0007" = 1',
    "a key twice": "max_drop = 1\nmax_drop = 2",
    "a number that is too long": f"max_drop = {'9' * 5000}",
    "no UTF-8": "max_drop = '\udcff'",
}


@pytest.mark.parametrize("name", POLICIES)
def test_policy(tmp_path: Path, name: str) -> None:
    (tmp_path / "report.json").write_text(make_report().model_dump_json())
    path = tmp_path / "policy.toml"
    path.write_bytes(f"[gate]\n{POLICIES[name]}\n".encode(errors="surrogateescape"))
    found = run("gate", tmp_path / "report.json", "--policy", path)
    assert (found.exit_code, "\x1b" in found.output) == (2, False), found.output


def test_a_policy_that_is_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(make_report().model_dump_json())
    os.mkfifo(tmp_path / "policy.toml")
    assert run("gate", tmp_path / "report.json", "--policy", tmp_path / "policy.toml").exit_code == 2


SETTINGS = (
    "samples = true",
    "mean = [nan, 0.5, 0.5]",
    "mean = [inf, 0.5, 0.5]",
    "std = [inf, 0.5, 0.5]",
    f"mean = {'[' * 5000}{']' * 5000}",
    'input_size = "0x0"',
    "input_size = [3, 0, 8]",
    "provider_option = { a = { b = 1 } }",
    "seed = true",
    "[gate]\nmin_coverage = true",
    "[gate]\nmin = {}",
)


@pytest.mark.parametrize("line", SETTINGS, ids=[line[:30] for line in SETTINGS])
def test_settings_file(tmp_path: Path, line: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"{line}\n")
    places: Sequence[object] = ("--data", tmp_path / "x.npz", "--out", tmp_path / "run")
    found = run("prune-export", "nets:make", *places, "--config", path)
    assert found.exit_code == 2, found.output
