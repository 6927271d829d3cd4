"""Several processes, kills and too little memory, through the command line."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import equal

from tests.cli.conftest import TINY, shell_environment

PRUNE = ("prune", *TINY, "--batch-size", "8")


def same(one: Path, other: Path) -> bool:
    a, b = (load_file(folder / "pruned.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)


def torchrun(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command += ["snowsdeploy_cli", *map(str, arguments)]
    return subprocess.run(command, env=shell_environment(), capture_output=True, text=True, timeout=300, check=False)


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


def test_too_many_processes_are_refused_once(workplace):
    done = torchrun(2, "prune", *TINY, "--batch-size", "64", "--out", "run")
    assert done.returncode != 0
    assert done.stderr.count("error: there are more processes than batches of images") == 1
    assert "2 processes, 1 batches of 64" in done.stderr


@pytest.mark.parametrize("command", ["compare", "plan"])
def test_what_cannot_share_its_work_refuses_torchrun(workplace, cli, monkeypatch, command):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = cli(command, *TINY)
    assert result.exit_code == 2
    assert f"{command} runs in one process" in result.output


def test_a_killed_run_continues_and_ends_with_the_same_weights(workplace, shell):
    settings = ("prune", *TINY, "--batch-size", "8", "--newton-steps", "3", "--include", "*")
    whole = shell(*settings, "--out", "whole", cwd=workplace)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "snowsdeploy_cli", *settings, "--out", "killed"],
        env=shell_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    layers = workplace / "killed" / "layers"
    while process.poll() is None and not any(layers.glob("?" * 16 + ".safetensors")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (workplace / "killed" / "prune.json").exists()  # it was killed before its end
    resumed = shell(*settings, "--out", "killed", "--resume", cwd=workplace)
    assert resumed.returncode == 0, resumed.stderr
    assert ", restored" in resumed.stderr
    assert same(workplace / "whole", workplace / "killed")
    assert not layers.exists()
