"""Help and version: fast, complete, and the same numbers as the library."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

from snowsdeploy.selectors import SELECTORS
from snowsdeploy.settings.export import WRITERS, ExportSettings
from snowsdeploy.settings.jobs import CompareJob, MainJob, PlanJob, PruneJob, ValidateJob
from snowsdeploy.settings.profile import ProfileSettings
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
        assert f"--{option.name.removeprefix('as_').replace('_', '-')}" in text
    assert text.isascii() or "╭" in text


def test_brackets_in_help_are_shown(cli):
    assert "x.npz[0::2]" in cli("prune-export", "--help").output


def test_version(cli):
    assert cli("--version").output.startswith("snowsdeploy ")


def test_module_and_command_are_one(shell):
    done = shell("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("snowsdeploy ")


KINDS = {
    "prune-export": MainJob, "prune": PruneJob, "plan": PlanJob, "export": ExportSettings, "validate": ValidateJob,
    "profile": ProfileSettings,
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_command_has_an_option_for_every_setting_of_its_stage(name):
    assert set(KINDS[name].model_fields) <= set(inspect.signature(COMMANDS[name]).parameters)


def test_a_comparison_leaves_out_what_it_decides_itself():
    parameters = set(inspect.signature(COMMANDS["compare"]).parameters)
    left_out = set(CompareJob.model_fields) - parameters
    assert left_out == {"selector", "selector_arg", "solver"}


def shown_default(parameter):
    _, bracket, text = parameter.annotation.__metadata__[0].help.partition("[default: ")
    return text.removesuffix("]") if bracket else None


def test_defaults_in_the_help_are_those_of_the_settings():
    parameters = inspect.signature(COMMANDS["prune-export"]).parameters
    for name, field in MainJob.model_fields.items():
        if name != "model" and isinstance(field.default, int | float | str) and not isinstance(field.default, bool):
            assert shown_default(parameters[name]) == str(field.default), name
    assert shown_default(parameters["latency_batch"]) == "1,8"
    assert shown_default(parameters["horizon"]) == "block"


def test_choices_are_never_broken(cli):
    text = cli("prune-export", "--help").output
    for choices in ("fast|default|max", "snows|k0|none", "K|block|model", "N:M|P%"):
        assert choices in text
    flat = " ".join(text.replace("│", " ").split())
    for words in ("method, row, layer, global", "auto, data, sampled", "none, diagonal, cholesky, kronecker"):
        assert f"One of {words}." in flat


def test_the_help_names_every_selector_and_format(cli):
    text = cli("prune-export", "--help").output
    assert all(name in text for name in (*SELECTORS, *WRITERS))


def test_switches_have_an_off_side_only_where_they_are_on(cli):
    text = cli("prune-export", "--help").output
    assert all(flag in text for flag in ("--no-permute", "--single"))
    assert "--no-resume" not in text
