"""The README's commands work, its options exist, and CI runs what it says."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import torch
from torch import nn

from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.read import load_policy, read_settings
from snowsdeploy.settings.reference import json_schema
from snowsdeploy_cli import entry, outcome
from snowsdeploy_cli.app import COMMANDS

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
DOCUMENTS = {path.name: path.read_text(encoding="utf-8") for path in REPOSITORY.glob("*.md")}
OTHER_OPTIONS = {
    "--minutes",
    "--strict",
    "--help",
    "--version",
    "--reference",
    "--model",
    "--study",
    "--nproc-per-node",
    "--max-restarts",
}  # of mypy, of the whole program, of benchmarks, of torchrun


def block(marker: str) -> str:
    """The one command between `<!-- marker -->` and `<!-- end -->`."""
    (text,) = re.findall(rf"<!-- {marker} -->\n```sh\n(.*?)\n```\n<!-- end -->", README, re.DOTALL)
    assert "\n" not in text
    return str(text)


def our_command(text: str) -> list[str]:
    """What follows `snowsdeploy` in a shell line."""
    words = shlex.split(text)
    return words[words.index(".venv/bin/snowsdeploy") + 1 :]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    roots = (REPOSITORY, REPOSITORY / "cli", REPOSITORY / "exporters")
    return subprocess.run(
        [sys.executable, "-m", "snowsdeploy_cli", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots)), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_main_job_passes(tmp_path):
    arguments = our_command(block("main job"))
    assert arguments[-2:] == ["--out", "run"]
    # fewer images and the exact solve only: the same way through the program in seconds
    done = run([*arguments[:-1], str(tmp_path / "run"), "--samples", "128", "--newton-steps", "0"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("PASSED")
    promised = set(
        re.findall(
            r"`([\w.]+\.(?:onnx|json|md|html|pt2|safetensors|toml))`", README.split("In `run/`:")[1].split("\n\n")[0]
        )
    )
    assert {p.name for p in (tmp_path / "run").iterdir() if not p.name.startswith(".")} == promised


def test_the_python_example_runs():
    (text,) = re.findall(r"<!-- python -->\n```python\n(.*?)```\n<!-- end -->", README, re.DOTALL)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 5))
    images = torch.randn(24, 3, 8, 8)
    scope = {"module": module, "images": images, "test_images": images[:12], "labels": torch.arange(12) % 5}
    exec(text, scope)
    assert scope["onnx_file"].is_file()


def test_both_commands_install_in_a_fresh_environment():
    for marker in ("main job", "tests"):
        assert re.match(
            r"python3 -m venv \.venv && \.venv/bin/pip install ('\.\[prune\]'|-e '\.\[dev\]') && \.venv/bin/",
            block(marker),
        )


def test_ci_runs_the_command_of_the_readme():
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    assert "<!-- tests -->" in script
    assert script.rstrip().endswith('eval "$test"')
    assert block("tests").endswith(" && .venv/bin/python -m pytest")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_options_that_documents_name_exist(name):
    known = {f"--{p.replace('_', '-')}" for f in COMMANDS.values() for p in inspect.signature(f).parameters}
    known |= {f"--no-{name.removeprefix('--')}" for name in ("--permute",)}  # a switch with two sides
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", DOCUMENTS[name]))
    assert named <= known | OTHER_OPTIONS


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_documents_link_to_exist(name):
    for target in re.findall(r"\]\((?!http)([^)#]+)", DOCUMENTS[name]):
        assert (REPOSITORY / target).exists(), target


def test_toml_examples_are_valid(tmp_path):
    settings, policy = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    for kind, text in (("settings", settings), ("policy", policy)):
        jsonschema.validate(tomllib.loads(text), json.loads(json_schema(kind)))
    (tmp_path / "snowsdeploy.toml").write_text(settings)
    assert read_settings(MainJob, {"model": "model.pth"}, tmp_path / "snowsdeploy.toml").latency_batch == (1, 8, 32)
    (tmp_path / "policy.toml").write_text(policy)
    assert load_policy(tmp_path / "policy.toml").model_dump().items() >= tomllib.loads(policy)["gate"].items()


def test_exit_codes_are_those_of_the_program():
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    constants = {**vars(outcome), **vars(entry)}
    assert table == {value for name, value in constants.items() if name.isupper() and isinstance(value, int)}


def test_commands_that_the_readme_names_are_all_there_are():
    for name in COMMANDS:
        assert f"`{name}" in README or f"snowsdeploy {name}" in README


def test_sample_output_is_of_this_program():
    (sample,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    assert max(map(len, sample.splitlines())) <= 80
    assert sample.rstrip().endswith("PASSED")
