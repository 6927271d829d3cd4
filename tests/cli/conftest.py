"""A tiny user model on disk, and the command line in this process and in another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from snowsdeploy_cli.app import app

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = [str(REPOSITORY), str(REPOSITORY / "cli"), str(REPOSITORY / "exporters")]

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.block = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head(torch.relu(self.block(x)).mean((2, 3)))

def make():
    torch.manual_seed(0)
    return Net()
"""
TINY = (
    *("tiny_net:make", "--data", "images.npz", "--batch-size", "32"),
    *("--input-size", "8x8", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"),
)


@pytest.fixture
def cli() -> Callable[..., object]:
    """Run the command line in this process."""
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def shell() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line as a user does, in its own process, at 80 columns and without a terminal."""

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "snowsdeploy_cli", *map(str, arguments)],
            cwd=cwd,
            env=shell_environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def shell_environment() -> dict[str, str]:
    """This process's environment with the sources on the path, and nothing that changes how output looks."""
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "COLUMNS", "FORCE_COLOR", "NO_COLOR")}
    return {**kept, "PYTHONPATH": os.pathsep.join(SOURCE_ROOTS), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a model factory and labelled images; the current directory."""
    fill_workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill_workplace(folder: Path) -> None:
    """Write `tiny_net.py` and `images.npz`."""
    (folder / "tiny_net.py").write_text(NET)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", x=images, y=rng.integers(0, 5, 64))
