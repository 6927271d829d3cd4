"""`debug parity` and `debug accuracy` as a user runs them, and the option that keeps layers dense."""

from __future__ import annotations

import inspect

import onnx
import pytest
from onnx import numpy_helper

from snowsdeploy.values import AccuracyCost, Divergence
from snowsdeploy_cli.app import DEBUG_COMMANDS
from tests.cli.conftest import TINY

EVAL = ("--eval-data", "images.npz", "--latency-runs", "5")


@pytest.mark.parametrize("name", DEBUG_COMMANDS)
def test_every_option_is_explained_within_80_columns(cli, name):
    text = cli("debug", name, "--help").output
    assert max(map(len, text.splitlines())) <= 80
    options = [p for p in inspect.signature(DEBUG_COMMANDS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        assert f"--{option.name.replace('_', '-')}" in text


def test_a_run_is_taken_apart(cli, shell, workplace):
    (workplace / "policy.toml").write_text("[gate]\nmax_drop = 100\n")
    options = (*TINY, *EVAL, "--effort", "fast", "--policy", "policy.toml", "--keep-dense-until-gate", "--out", "run")
    assert cli("prune-export", *options).exit_code == 0

    sound = shell("debug", "parity", "run", "--batch", "4", "--json", "parity.json", cwd=workplace)
    assert sound.returncode == 0, sound.stderr
    assert "nothing to do" in sound.stdout
    assert Divergence.model_validate_json((workplace / "parity.json").read_text()).kind == "agrees"

    costs = shell("debug", "accuracy", "run", "--data-items", "32", "--json", "accuracy.json", cwd=workplace)
    assert costs.returncode == 0, costs.stderr
    found = AccuracyCost.model_validate_json((workplace / "accuracy.json").read_text())
    assert [row.layers for row in found.units] == [("block",)]
    assert found.images == 32
    assert "block" in costs.stdout
    assert "1/1 in" in costs.stderr

    path = workplace / "run" / "model.onnx"
    model = onnx.load(path)
    weight = next(t for t in model.graph.initializer if list(t.dims) == [16, 16, 3, 3])
    weight.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(weight), weight.name))
    onnx.save(model, path)
    broken = shell("debug", "parity", "run", "--batch", "4", cwd=workplace)
    flat = " ".join(broken.stdout.split())
    assert "layer block is the first to diverge: relative error" in flat
    assert "The file has changed since its export." in flat
    for done in (sound, costs, broken):
        assert max(map(len, [*done.stdout.splitlines(), *done.stderr.splitlines()])) <= 80


def test_wrong_use_is_a_message(cli, workplace):
    assert cli("debug", "parity", workplace).exit_code == 3
    assert cli("debug", "parity", workplace, "--precision", "fp8").exit_code == 2
    (workplace / "policy.toml").write_text("[gate]\n")
    assert cli("debug", "accuracy", workplace, "--max-drop", "1", "--policy", "policy.toml").exit_code == 2
    assert cli("prune-export", *TINY, "--keep-dense-until-gate", "--out", "run").exit_code == 2
