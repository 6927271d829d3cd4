"""Exit codes and messages: one table, no traceback, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from snowsdeploy.errors import DataError, SnowsDeployError, UsageError
from snowsdeploy.report.store import write_report
from snowsdeploy.values import RuleResult, Verdict
from snowsdeploy_cli.outcome import exit_code
from tests.cli.conftest import TINY, shell_environment
from tests.sample_report import make_report


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 4), ("inconclusive", 5)])
def test_verdict_decides(verdict, code):
    rule = RuleResult(rule="a", measured="1", limit="2", verdict=verdict)
    assert exit_code(Verdict.of([rule])) == code


def test_no_verdict_is_inconclusive():
    assert exit_code(None) == 5


@pytest.mark.parametrize(
    ("limits", "code", "last"),
    [
        ("max_drop = 2", 0, "PASSED"),
        ("max_drop = 0.05", 4, "FAILED"),
        ("min_speedup = 1.05", 5, "INCONCLUSIVE"),
    ],
)
def test_gate_judges_a_report_by_a_policy(cli, tmp_path, limits, code, last):
    write_report(make_report(), tmp_path / "report.json")
    (tmp_path / "policy.toml").write_text(f"[gate]\n{limits}\n")
    done = cli("gate", tmp_path / "report.json", "--policy", tmp_path / "policy.toml")
    assert done.exit_code == code
    assert done.output.rstrip().splitlines()[-1].startswith(last)
    as_json = cli("gate", tmp_path / "report.json", "--policy", tmp_path / "policy.toml", "--json")
    assert as_json.exit_code == code
    assert json.loads(as_json.stdout)["verdict"] == {0: "pass", 4: "fail", 5: "inconclusive"}[code]


USAGE = {
    "unknown command": ("prun-export",),
    "unknown option": ("prune-export", *TINY, "--out", "run", "--sample", "3"),
    "not a number": ("prune-export", *TINY, "--out", "run", "--samples", "many"),
    "not a choice": ("prune-export", *TINY, "--out", "run", "--targets", "sparse"),
    "out of range": ("prune-export", *TINY, "--out", "run", "--samples", "0"),
    "pattern": ("prune-export", *TINY, "--out", "run", "--pattern", "4:2"),
    "provider": ("prune-export", *TINY, "--out", "run", "--provider", "rocm"),
    "nothing given": ("prune-export", "tiny_net:make"),
    "no such config": ("prune-export", *TINY, "--out", "run", "--config", "none.toml"),
    "no such policy": ("prune-export", *TINY, "--out", "run", "--policy", "none.toml"),
    "inspect's pattern": ("inspect", "images.npz", "--pattern", "two"),
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_usage_is_2(cli, workplace, arguments):
    before = sorted(p.name for p in workplace.iterdir())
    done = cli(*arguments)
    assert done.exit_code == 2
    assert done.stderr.strip()
    assert "Traceback" not in done.output
    assert sorted(p.name for p in workplace.iterdir()) == before


OPERATIONAL = {
    "no such model": (
        ("prune-export", "none.pth", "--arch", "resnet18", "--data", "images.npz", "--out", "run"),
        "none.pth",
    ),
    "truncated model": (
        ("prune-export", "cut.pth", "--arch", "resnet18", "--data", "images.npz", "--out", "run"),
        "cut.pth",
    ),
    "empty data folder": (("prune-export", *TINY, "--data", "empty", "--out", "run"), "empty"),
    "provider": (("prune-export", *TINY, "--out", "run", "--provider", "tensorrt"), "--provider tensorrt"),
    "full output": (("prune-export", *TINY, "--out", "full"), "--force"),
    "not a run": (("export", "full"), "full"),
    "not a run to validate": (("validate", "full"), "full"),
    "no such report": (("gate", "none.json"), "none.json"),
    "nothing to inspect": (("inspect", "none.onnx"), "none.onnx"),
}


@pytest.mark.parametrize(("arguments", "named"), OPERATIONAL.values(), ids=OPERATIONAL)
def test_operational_error_is_3_with_one_message(cli, workplace, arguments, named):
    if "tensorrt" in arguments and torch.cuda.is_available():
        pytest.skip("this machine may run TensorRT: the test needs a provider that does not load")
    (workplace / "cut.pth").write_bytes(b"PK\x03\x04 cut off")
    (workplace / "empty").mkdir()
    (workplace / "full").mkdir()
    (workplace / "full" / "notes.txt").write_text("mine")
    done = cli(*arguments)
    assert done.exit_code == 3
    messages = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1
    assert named in done.stderr
    assert "Traceback" not in done.output
    assert not (workplace / "run").exists()
    assert [p.name for p in (workplace / "full").iterdir()] == ["notes.txt"]


RAISED = {
    "usage": (UsageError("wrong option"), 2, "error: wrong option"),
    "ours": (DataError("no images", fix="add some"), 3, "error: no images"),
    "base": (SnowsDeployError("wrong"), 3, "error: wrong"),
    "disk full": (
        OSError(errno.ENOSPC, "No space left on device", "run/model.onnx"),
        3,
        "run/model.onnx: No space left",
    ),
    "memory": (MemoryError(), 3, "error: the machine has too little memory"),
    "memory of torch": (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 3, "can't allocate memory"),
    "interrupt": (KeyboardInterrupt(), 130, "--resume"),
}


@pytest.mark.parametrize(("error", "code", "text"), RAISED.values(), ids=RAISED)
def test_every_error_has_its_code(cli, workplace, monkeypatch, error, code, text):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("snowsdeploy.stages.job.run_main_job", fail)
    done = cli("prune-export", *TINY, "--out", "run")
    assert done.exit_code == code
    assert text in done.stderr


@pytest.mark.parametrize("kind", [AssertionError, RuntimeError])
def test_a_crash_is_not_read_as_a_verdict(cli, workplace, monkeypatch, kind):
    def fail(*_, **__):
        raise kind("a defect of ours")

    monkeypatch.setattr("snowsdeploy.stages.job.run_main_job", fail)
    assert cli("prune-export", *TINY, "--out", "run").exit_code == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process on Windows")
def test_control_c_is_130_and_says_how_to_go_on(workplace):
    (workplace / "slow.py").write_text(
        "import pathlib, time\ndef make():\n    pathlib.Path('loading').touch()\n    time.sleep(60)\n"
    )
    command = [
        sys.executable,
        "-m",
        "snowsdeploy_cli",
        "prune-export",
        "slow:make",
        "--data",
        "images.npz",
        "--out",
        "run",
    ]
    process = subprocess.Popen(
        command,
        env=shell_environment(),
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, which a test run may be, ignores interrupts and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread here
    )
    for _ in range(600):
        if (workplace / "loading").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: run the same command with --resume" in text
    assert "Traceback" not in text
