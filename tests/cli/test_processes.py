"""Several processes, kills and too little memory, through the command line."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file
from torch import equal

from tests.cli.conftest import TINY, shell_environment

LEFT = {".snowsdeploy", "config.toml", "program.pt2", "pruned.safetensors", "masks.safetensors", "prune.json"}
PRUNE = ("prune", *TINY, "--batch-size", "8")


def same(one: Path, other: Path) -> bool:
    a, b = (load_file(folder / "pruned.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)


def torchrun_command(processes: int, *arguments: object, restarts: int = 0) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*command, f"--max-restarts={restarts}", "-m", "snowsdeploy_cli", *map(str, arguments)]


def torchrun(processes: int, *arguments: object, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    command = torchrun_command(processes, *arguments, restarts=restarts)
    return subprocess.run(command, env=shell_environment(), capture_output=True, text=True, timeout=300, check=False)


def wait_for_a_solve(process: subprocess.Popen[str] | subprocess.Popen[bytes], run: Path) -> None:
    """Beside the order of channels."""
    while process.poll() is None and len(list((run / "layers").glob("?" * 16 + ".safetensors"))) < 2:
        time.sleep(0.005)


def test_two_processes_write_one_run_with_the_weights_of_one_process(workplace, shell):
    alone = shell(*PRUNE, "--out", "alone", cwd=workplace)
    assert alone.returncode == 0, alone.stderr
    both = torchrun(2, "prune-export", *PRUNE[1:], "--out", "both", "--latency-runs", "5", "--latency-batch", "1")
    assert both.returncode == 1, both.stderr  # torchrun's for every code but 0: nothing judged the accuracy
    assert "exitcode  : 5" in both.stderr
    assert same(workplace / "alone", workplace / "both")
    assert (workplace / "both" / "report.html").is_file()
    assert both.stdout.count("Written to both") == 1  # the first process alone speaks
    assert both.stderr.count("prune: 2:4, 64 images, on cpu, 2 processes") == 1
    assert sorted(p.name for p in (workplace / "both").iterdir() if p.is_dir()) == []


def test_what_is_wrong_for_all_processes_is_said_by_the_first(cli, workplace, monkeypatch):
    monkeypatch.setattr("snowsdeploy_cli.outcome._HEAD_START", 0.0)
    for number, said in ((0, True), (1, False)):
        monkeypatch.setattr("snowsdeploy_cli.outcome.process_number", lambda number=number: number)
        monkeypatch.setattr("snowsdeploy.pruning.plan.world", lambda: 2)
        done = cli("prune", *TINY, "--batch-size", "64", "--out", f"run-{number}")
        assert done.exit_code == 2
        assert ("error: there are more processes than batches of images" in done.stderr) == said
        assert ("2 processes, 1 batches of 64" in done.stderr) == said


@pytest.mark.parametrize("command", ["compare", "plan"])
def test_what_cannot_share_its_work_refuses_torchrun(workplace, cli, monkeypatch, command):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = cli(command, *TINY)
    assert result.exit_code == 2
    assert f"{command} runs in one process" in result.output


def test_killed_runs_end_with_the_same_weights(workplace, shell):
    settings = ("prune", *TINY, "--batch-size", "8", "--newton-steps", "3", "--include", "*", "--single")
    whole = shell(*settings, "--out", "whole", cwd=workplace)
    assert whole.returncode == 0, whole.stderr
    killed_alone_then_resumed(workplace, shell, settings)
    killed_among_two_then_restarted(workplace, settings)


def killed_alone_then_resumed(workplace, shell, settings):
    process = subprocess.Popen(
        [sys.executable, "-m", "snowsdeploy_cli", *settings, "--out", "killed"],
        env=shell_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_a_solve(process, workplace / "killed")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (workplace / "killed" / "prune.json").exists()  # it was killed before its end
    resumed = shell(*settings, "--out", "killed", "--resume", cwd=workplace)
    assert resumed.returncode == 0, resumed.stderr
    assert ", restored" in resumed.stderr
    assert "order of channels restored" in resumed.stderr
    assert same(workplace / "whole", workplace / "killed")
    assert not (workplace / "killed" / "layers").exists()


def killed_among_two_then_restarted(workplace, settings):
    process = subprocess.Popen(
        torchrun_command(2, *settings, "--out", "restarted", restarts=1),
        env=shell_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_a_solve(process, workplace / "restarted")
    workers = [p for p in psutil.Process(process.pid).children() if "snowsdeploy_cli" in " ".join(p.cmdline())]
    workers[1].kill()
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    assert ", restored" in errors
    assert same(workplace / "whole", workplace / "restarted")
    assert {p.name for p in (workplace / "restarted").iterdir()} == LEFT
