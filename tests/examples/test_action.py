"""The reusable action: its schema, and its scripts, run with a stand-in for the command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from snowsdeploy_cli.app import app

REPOSITORY = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((REPOSITORY / "action.yml").read_text(encoding="utf-8"))
STEPS = {step["name"]: step["run"] for step in ACTION["runs"]["steps"]}


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.github-actions", "action.yml"),
        ("vendor.github-workflows", "examples/ci/github.yml"),
        ("vendor.github-workflows", "examples/ci/action.yml"),
        ("vendor.gitlab-ci", "examples/ci/gitlab.yml"),
    ],
)
def test_the_server_accepts_the_file(schema: str, file: str) -> None:
    pytest.importorskip("check_jsonschema", reason="the server's schemas come with check-jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(REPOSITORY / file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def run(step: str, folder: Path, code: int, **variables: str) -> tuple[int, list[list[str]], str]:
    """Exit code, the commands that the step ran, and what it told the server."""
    log, output, tools = folder / "log", folder / "output", folder / "bin"
    tools.mkdir()
    stand_in = tools / "snowsdeploy"
    stand_in.write_text(f'#!/bin/bash\nprintf "%s\\t" "$@" >>"{log}"\necho >>"{log}"\nexit {code}\n')
    stand_in.chmod(0o755)
    (tools / "python").symlink_to(sys.executable)
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "GITHUB_OUTPUT": str(output), **variables}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[step]],
        env=environment,
        check=False,
        timeout=60,
    )
    commands = [line.split("\t")[:-1] for line in log.read_text().splitlines()]
    return done.returncode, commands, output.read_text() if output.exists() else ""


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (4, 0), (5, 0), (3, 3), (2, 2), (1, 1)])
def test_verdicts_go_on_to_the_gate_and_errors_end_the_job(tmp_path: Path, code: int, seen: int) -> None:
    given = {"MODEL": "a b.pth", "OPTIONS": "--data 'x y.npz[0::2]' --seed 1", "POLICY": "p.toml", "OUT": "out"}
    found, commands, _ = run("Prune, export and measure", tmp_path, code, **given)
    assert found == seen
    (words,) = commands
    assert words == [
        "prune-export", "a b.pth", "--data", "x y.npz[0::2]", "--seed", "1", "--policy", "p.toml", "--out", "out"
    ]  # fmt: skip


def test_options_may_be_left_out(tmp_path: Path) -> None:
    _, commands, _ = run("Prune, export and measure", tmp_path, 0, MODEL="m", OPTIONS="", POLICY="", OUT="out")
    assert commands == [["prune-export", "m", "--out", "out"]]


@pytest.mark.parametrize(("code", "verdict"), [(0, "pass"), (4, "fail"), (5, "inconclusive")])
def test_the_verdict_is_told_and_decides_the_job(tmp_path: Path, code: int, verdict: str) -> None:
    found, commands, told = run("Judge", tmp_path, code, POLICY="", BASELINE="old.json", OUT="out")
    assert (found, told) == (code, f"verdict={verdict}\n")
    (words,) = commands
    text = CliRunner().invoke(app, ["gate", "--help"], env={"COLUMNS": "300"}).output
    known = set(re.findall(r"--[a-z][a-z0-9-]+", text))
    assert {word for word in words if word.startswith("--")} <= known
    assert words[-2:] == ["--baseline", "old.json"]
