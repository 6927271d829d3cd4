"""Help and version: fast, complete, and the same numbers as the library."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from typing import get_type_hints

import pytest
import typer

from snowsdeploy.selectors import SELECTORS
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy_cli.app import COMMANDS
from tests.cli.conftest import shell_environment

HEAVY = ("torch", "timm", "onnx", "onnxruntime", "scipy", "numpy")
PROBE = f"""
import json, sys
from typer.testing import CliRunner
from snowsdeploy_cli.app import COMMANDS, app
codes = [CliRunner().invoke(app, [name, "--help"]).exit_code for name in COMMANDS]
codes.append(CliRunner().invoke(app, ["--help"]).exit_code)
codes.append(CliRunner().invoke(app, ["--version"]).exit_code)
print(json.dumps([codes, [m for m in {HEAVY!r} if m in sys.modules]]))
"""


def test_help_and_version_import_nothing_heavy():
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, env=shell_environment(), capture_output=True, text=True, check=True)
    codes, heavy = json.loads(done.stdout)
    assert set(codes) == {0}
    assert heavy == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained_within_80_columns(cli, name):
    text = cli(name, "--help").output
    assert max(map(len, text.splitlines())) <= 80
    options = [p for p in inspect.signature(COMMANDS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        assert f"--{option.name.replace('_', '-')}" in text
    assert text.isascii() or "╭" in text


def test_brackets_in_help_are_shown(cli):
    assert "x.npz[0::2]" in cli("prune-export", "--help").output


def test_version(cli):
    assert cli("--version").output.startswith("snowsdeploy ")


def test_module_and_command_are_one(shell):
    done = shell("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("snowsdeploy ")


def test_main_job_has_an_option_for_every_setting():
    parameters = set(inspect.signature(COMMANDS["prune-export"]).parameters) - {"config", "quiet"}
    assert parameters == set(MainJob.model_fields)


def test_defaults_in_the_help_are_those_of_the_library():
    hints = get_type_hints(inspect.unwrap(COMMANDS["prune-export"]), include_extras=True)
    shown = {}
    for name, hint in hints.items():
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, typer.models.OptionInfo) and isinstance(extra.show_default, str):
                shown[name] = extra.show_default
    assert len(shown) > 10
    for name, text in shown.items():
        default = MainJob.model_fields[name].default
        wanted = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        assert text == {"joint": "joint"}.get(name, wanted), name


def test_settings_with_a_default_show_it():
    hints = get_type_hints(inspect.unwrap(COMMANDS["prune-export"]), include_extras=True)
    for name, field in MainJob.model_fields.items():
        if isinstance(field.default, int | float | str) and not isinstance(field.default, bool):
            option = hints[name].__metadata__[0]
            assert isinstance(option.show_default, str), name


def test_the_help_names_every_selector(cli):
    text = cli("prune-export", "--help").output
    assert all(name in text for name in SELECTORS)
