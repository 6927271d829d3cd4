"""The base install: a gate and a target run where PyTorch cannot be imported; the rest says what to install."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from snowsdeploy.report.store import write_report
from snowsdeploy_cli.app import app
from tests.cli.conftest import SOURCE_ROOTS, TINY, fill_workplace, shell_environment
from tests.sample_report import make_report

# What the extra [prune] brings: an import of any of them fails as where it is not installed.
BLOCKED = ("torch", "torchvision", "timm", "onnxscript", "safetensors")
SITE = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report, a run's files, and a `sitecustomize` that hides PyTorch."""
    place = tmp_path_factory.mktemp("base")
    fill_workplace(place)
    (place / "hidden").mkdir()
    (place / "hidden" / "sitecustomize.py").write_text(SITE)
    write_report(make_report(), place / "report.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for arguments in (("prune", *TINY, "--effort", "fast", "--out", "run"), ("export", "run")):
            assert CliRunner().invoke(app, arguments).exit_code == 0
    return place


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(folder / "hidden"), *SOURCE_ROOTS])
    return subprocess.run(
        [sys.executable, "-m", "snowsdeploy_cli", *arguments],
        cwd=folder,
        env={**shell_environment(), "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


WORKS = {
    "gate": ("gate", "report.json"),
    "report": ("report", "report.json"),
    "inspect": ("inspect", "run/model.onnx", "--require", "block"),
    "doctor": ("doctor",),
    "profile": ("profile", "run/dense.onnx", "run/model.onnx", "--runs", "10"),
    "schema": ("schema", "policy"),
    "help": ("prune-export", "--help"),
}


@pytest.mark.parametrize("name", WORKS)
def test_it_runs_without_pytorch(folder: Path, name: str) -> None:
    done = run(folder, *WORKS[name])
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "Traceback" not in done.stderr


NEEDS = {
    "prune-export": ("prune-export", *TINY, "--out", "new"),
    "prune": ("prune", *TINY, "--out", "new"),
    "plan": ("plan", *TINY),
    "export": ("export", "run"),
    "validate": ("validate", "run"),
    "compare": ("compare", *TINY, "--out", "new"),
    "debug parity": ("debug", "parity", "run"),
    "debug accuracy": ("debug", "accuracy", "run"),
    "inspect": ("inspect", "run/pruned.safetensors"),
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_needs_pytorch_says_the_one_line_that_installs_it(folder: Path, name: str) -> None:
    done = run(folder, *NEEDS[name])
    assert done.returncode == 3, done.stderr
    flat = " ".join(done.stderr.split())
    assert f"{name}" in flat
    assert "needs the extra [prune], which is not installed" in flat
    assert "[prune]'" in flat
    assert "try: pip install '" in flat
    assert "Traceback" not in done.stderr
    assert not (folder / "new").exists()


def test_python_says_it_too(folder: Path) -> None:
    text = (
        "import snowsdeploy\n"
        "print(snowsdeploy.judge('report.json').verdict, snowsdeploy.inspect('run/model.onnx').coverage > 0)\n"
        "try:\n    snowsdeploy.prune_export('m.pt', data='d.npz')\n"
        "except snowsdeploy.SnowsDeployError as error:\n    print(error)\n"
    )
    paths = os.pathsep.join([str(folder / "hidden"), *SOURCE_ROOTS])
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=folder,
        env={**shell_environment(), "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("pass True\nsnowsdeploy.prune_export needs the extra [prune]")


def test_the_command_names_where_the_package_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    from snowsdeploy import install  # noqa: PLC0415 - what is patched

    class Recorded:
        text: str | None = json.dumps({"url": "file:///a/clone"})

        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return self.text

    monkeypatch.setattr(install, "distribution", lambda name: Recorded())
    assert install.install_command("prune") == "pip install '/a/clone[prune]'"
    Recorded.text = None
    assert install.install_command("prune") == "pip install '.[prune]'"
