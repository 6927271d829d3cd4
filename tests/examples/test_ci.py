"""The CI examples: their policy loads, and their commands are ones that this version understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from snowsdeploy.settings.read import load_policy
from snowsdeploy_cli.app import app

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "ci"


def commands(path: Path) -> list[list[str]]:
    """Every `snowsdeploy` command of a workflow, folded lines joined."""
    texts: list[str] = []

    def visit(value: object) -> None:
        if isinstance(value, str):
            texts.extend(line for line in value.splitlines() if line.startswith("snowsdeploy "))
        elif isinstance(value, dict):
            for item in value.values():
                visit(item)
        elif isinstance(value, list):
            for item in value:
                visit(item)

    visit(yaml.safe_load(path.read_text(encoding="utf-8")))
    return [shlex.split(text) for text in texts]


def test_the_policy_loads_and_names_every_precision() -> None:
    policy = load_policy(FOLDER / "policy.toml")
    assert policy.strict_intervals
    assert policy.parity_limit("int8") == 0.2


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
def test_the_commands_have_options_that_exist(name: str) -> None:
    found = commands(FOLDER / name)
    assert [words[1] for words in found] == ["prune-export", "gate"]
    for words in found:
        text = CliRunner().invoke(app, [words[1], "--help"], env={"COLUMNS": "300"}).output
        known = set(re.findall(r"--[a-z][a-z0-9-]+", text))
        assert {w for w in words if w.startswith("--")} <= known
