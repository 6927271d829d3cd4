"""However a command ends early, and whoever stopped reading: one line, no code of a verdict, no verdict changed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snowsdeploy.report.store import write_report
from tests.cli.conftest import TINY, shell_environment
from tests.sample_report import make_report

PROGRAM = f"{sys.executable} -m snowsdeploy_cli"


@pytest.fixture
def report(tmp_path: Path) -> Path:
    write_report(make_report(), tmp_path / "report.json")
    (tmp_path / "fails.toml").write_text("[gate]\nmax_drop = 0.05\n")
    return tmp_path


def bash(command: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=shell_environment() | more, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("around", "more"),
    [
        ("{} | head -0; exit ${{PIPESTATUS[0]}}", {}),
        ("{} --json | head -0; exit ${{PIPESTATUS[0]}}", {}),
        ("{} >&-", {}),
        ("{} 2>&-", {}),
        ("{} <&- >&- 2>&-", {}),
        ("{} > /dev/full", {}),
        ("{}", {"COLUMNS": "0"}),
        ("{}", {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}),
        ("{}", {"TERM": "dumb"}),
    ],
)
def test_a_verdict_is_its_code_whatever_becomes_of_the_text(report: Path, around: str, more: dict[str, str]) -> None:
    for policy, code in (("", 0), (" --policy fails.toml", 4)):
        done = bash(around.format(f"{PROGRAM} gate report.json{policy}"), report, **more)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("after", [0.0, 0.4, 2.0, 4.0])
def test_a_signal_at_any_moment_is_one_line(
    workplace: Path, number: signal.Signals, code: int, word: str, after: float
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "snowsdeploy_cli", "prune-export", *TINY, "--out", "run", "--samples", "4000"],
        cwd=workplace,
        env=shell_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # as in `test_outcomes`: children of a background job would ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread here
    )
    until_signals_are_held(process)
    time.sleep(after)
    ended = process.poll() is not None
    os.kill(process.pid, number)
    error = process.communicate(timeout=60)[1]
    assert "Traceback" not in error
    if ended or process.returncode != code:
        assert process.returncode in (0, 4, 5), error  # it was faster
        return
    # Typer says "Aborted", or nothing at all, where its own code was interrupted: the command had not begun
    assert all(line.startswith((word, "Aborted")) for line in error.rstrip().splitlines()[-1:])


def until_signals_are_held(process: subprocess.Popen[str]) -> None:
    """Before, Python starts; it catches SIGTERM for nobody but the door."""
    status = Path(f"/proc/{process.pid}/status")
    for _ in range(2000):
        caught = re.search(r"SigCgt:\s*(\w+)", status.read_text())
        if process.poll() is not None or (caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1):
            return
        time.sleep(0.01)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_control_c_before_anything_has_begun_is_silent() -> None:
    """The window between Python's start and the door, stretched by an import that takes its time."""
    script = (
        "import signal, sys, os, importlib\n"
        "module = importlib.import_module('snowsdeploy_cli.__main__')\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=shell_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGINT
    assert not done.stderr


def test_wrong_options_are_told_before_anything_heavy_is_imported(workplace: Path) -> None:
    script = (
        "import sys\nsys.argv = ['snowsdeploy', 'prune-export', 'x.pth', '--data', 'y.npz', '--effort', 'much']\n"
        "from snowsdeploy_cli.entry import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 2, end.code\n"
        "assert 'torch' not in sys.modules and 'onnxruntime' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=workplace,
        env=shell_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
