"""The main job and its stages on a user's tiny model, as a user runs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from snowsdeploy.layout.onnx_layout import graph_nodes
from snowsdeploy.report.store import read_report
from snowsdeploy_cli.app import app
from tests.cli.conftest import TINY, fill_workplace

EVAL = ("--eval-data", "images.npz", "--latency-runs", "5")
ALL_FILES = {
    ".snowsdeploy",
    "config.toml",
    "masks.safetensors",
    "dense.onnx",
    "export.json",
    "model.onnx",
    "program.pt2",
    "prune.json",
    "pruned.safetensors",
    "report.json",
    "summary.md",
    "report.html",
}


def lenient(folder) -> str:
    """A policy that this random net on 64 images can meet."""
    (folder / "policy.toml").write_text("[gate]\nmax_drop = 100\nmin_coverage = 0.5\n")
    return "policy.toml"


def test_main_job_leaves_a_whole_run(shell, workplace):
    done = shell("prune-export", *TINY, *EVAL, "--policy", lenient(workplace), "--out", "run", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (workplace / "run").iterdir()} == ALL_FILES
    report = read_report(workplace / "run" / "report.json")
    assert [d.name for d in report.prune.pruned] == ["block"]
    (command,) = report.commands
    assert command.stage == "prune-export"
    assert command.command.startswith("snowsdeploy prune-export tiny_net:make --data images.npz")
    assert report.warnings
    assert "PASSED" in done.stdout.splitlines()
    assert "warning: " in done.stderr
    for text in (done.stdout, done.stderr):
        assert max(map(len, text.splitlines())) <= 80
        assert "\x1b" not in text
    assert "block 16x16x3x3: pruned" in done.stderr


def test_stages_one_by_one_give_what_the_main_job_gives(cli, workplace):
    policy = lenient(workplace)
    assert cli("prune-export", *TINY, *EVAL, "--policy", policy, "--out", "whole").exit_code == 0
    pruned = cli("prune", *TINY, "--out", "run")
    assert pruned.exit_code == 0
    assert "1 layers pruned" in pruned.stdout
    exported = cli("export", "run")
    assert exported.exit_code == 0
    assert "model.onnx" in exported.stdout
    validated = cli("validate", "run", *EVAL, "--policy", policy)
    assert validated.exit_code == 0
    whole, stages = (read_report(workplace / name / "report.json") for name in ("whole", "run"))
    mine, theirs = stages.variants[0].sparsity, whole.variants[0].sparsity
    assert mine == theirs.model_copy(update={"file": mine.file})
    assert stages.variants[0].accuracy == whole.variants[0].accuracy
    assert stages.prune.solves[0].loss_final == whole.prune.solves[0].loss_final
    assert {p.name for p in (workplace / "run").iterdir()} == ALL_FILES


def test_export_names_every_format_and_what_was_not_made(shell, workplace):
    assert shell("prune", *TINY, "--out", "run", cwd=workplace).returncode == 0
    options = ("--format", "tensorrt,triton", "--format", "torch", "--uint8-input", "--top-k", "2")
    done = shell("export", "run", *options, cwd=workplace)
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    for part in ("run/serving.onnx", "run/tensorrt/ 1 file ", "run/triton/ ", "run/torch/ 2 files"):
        assert part in shown
    assert "tensorrt: no engine was built: " in shown
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert {p.name for p in (workplace / "run").iterdir() if p.is_dir()} == {"tensorrt", "triton", "torch"}


def test_a_gate_that_fails_still_leaves_the_evidence(cli, workplace):
    (workplace / "strict.toml").write_text("[gate]\nmax_parity_error = 1e-30\nmax_drop = 100\n")
    done = cli("prune-export", *TINY, *EVAL, "--policy", "strict.toml", "--out", "run")
    assert done.exit_code == 4
    assert done.stdout.rstrip().splitlines()[-1].startswith("FAILED")
    assert {p.name for p in (workplace / "run").iterdir()} == ALL_FILES


def test_without_eval_data_the_accuracy_gate_is_inconclusive(cli, workplace):
    done = cli("prune-export", *TINY, "--latency-runs", "5", "--out", "run")
    assert done.exit_code == 5
    assert "pass --eval-data" in done.stdout


def test_settings_from_toml_and_quiet(cli, workplace):
    (workplace / "snowsdeploy.toml").write_text(
        'samples = 16\nexclude = ["head"]\nlatency_runs = 5\nout = "run"\nseed = 1\n'
    )
    done = cli("prune", *TINY, "--config", "snowsdeploy.toml", "--seed", "2", "--quiet")
    assert done.exit_code == 0
    assert done.stderr == ""
    report = json.loads((workplace / "run" / "prune.json").read_text())
    assert report["calibration"]["items"] == 16
    assert report["seed"] == 2


def test_second_run_needs_force_and_keeps_the_first(cli, workplace):
    assert cli("prune", *TINY, "--out", "run").exit_code == 0
    before = (workplace / "run" / "prune.json").read_bytes()
    refused = cli("prune", *TINY, "--out", "run")
    assert refused.exit_code == 3
    assert "--force" in refused.stderr
    assert (workplace / "run" / "prune.json").read_bytes() == before
    assert cli("prune", *TINY, "--out", "run", "--force").exit_code == 0


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run with its ONNX files, made once; for tests that only read."""
    folder = tmp_path_factory.mktemp("workplace")
    fill_workplace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for arguments in (("prune", *TINY, "--out", "run"), ("export", "run")):
            assert CliRunner().invoke(app, arguments).exit_code == 0
    return folder / "run"


def test_inspect_proves_and_refuses(cli, exported):
    shown = cli("inspect", exported / "model.onnx")
    assert shown.exit_code == 0
    assert "block" in shown.stdout
    assert cli("inspect", exported / "model.onnx", "--require", "block").exit_code == 0
    refused = cli("inspect", exported / "dense.onnx", "--require", "block")
    assert refused.exit_code == 4
    assert "not 2:4: block" in refused.stdout
    assert cli("inspect", exported / "model.onnx", "--require", "bloc").exit_code == 2


@pytest.mark.parametrize("name", ["model.onnx", "pruned.safetensors", "program.pt2"])
def test_inspect_reads_any_file_of_a_run(cli, exported, name):
    done = cli("inspect", exported / name, "--json")
    assert done.exit_code == 0
    layers = {row["name"]: row for row in json.loads(done.stdout)["layers"]}
    assert layers["block"]["layout_valid"] is (name != "program.pt2")


LOG = "[I] [TRT] (Sparsity) {} 1 layer(s) {} sparse tactics: {}\n"


def engine_log(model: Path, chosen: bool) -> str:
    """A build log after the documented format, with the file's own names."""
    (name,) = graph_nodes(model).products["block"]
    found = LOG.format("Found", "eligible to use", f"{name} + relu")
    none = LOG.format("Chose", "using", "").replace("Chose 1", "Chose 0")
    return found + (LOG.format("Chose", "using", f"{name} + relu") if chosen else none)


def test_inspect_shows_what_an_engine_made_of_the_layers(cli, exported, tmp_path):
    log = tmp_path / "build.log"
    log.write_text(engine_log(exported / "model.onnx", chosen=True), encoding="utf-8")
    shown = cli("inspect", exported / "model.onnx", "--engine-log", log)
    assert "TensorRT found 1 of" in shown.stdout
    content = json.loads(cli("inspect", exported / "model.onnx", "--engine-log", log, "--json").stdout)
    assert {row["name"]: row["chosen"] for row in content["layers"]}["block"] == "yes"
    assert (content["engine"]["found"], content["engine"]["chosen"]) == (1, 1)
    assert cli("inspect", exported / "pruned.safetensors", "--engine-log", log).exit_code == 2
    swapped = cli("inspect", exported / "model.onnx", "--engine-layers", log)
    assert swapped.exit_code == 3
    assert "--engine-layers is not JSON" in swapped.stderr


@pytest.mark.parametrize(("chosen", "code"), [(True, 0), (False, 4)])
def test_validate_takes_an_engine_and_the_gate_judges_it(cli, exported, tmp_path, chosen, code):
    run, log, policy = tmp_path / "run", tmp_path / "build.log", tmp_path / "policy.toml"
    shutil.copytree(exported, run)
    log.write_text(engine_log(run / "model.onnx", chosen=chosen), encoding="utf-8")
    policy.write_text("[gate]\nmin_chosen = 0.1\nmin_found = 0.1\n", encoding="utf-8")
    options = ("--latency-runs", "5", "--latency-batch", "1", "--engine-log", log, "--quiet")
    assert cli("validate", run, *options).exit_code == 5  # no images to judge accuracy on
    assert "TensorRT found 1 of" in (run / "report.html").read_text(encoding="utf-8")
    judged = cli("gate", run / "report.json", "--policy", policy, "--json")
    rules = {rule["rule"]: rule["verdict"] for rule in json.loads(judged.stdout)["rules"]}
    assert (rules["engine found"], rules["engine chose"]) == ("pass", {0: "pass", 4: "fail"}[code])
    before = (run / "report.json").read_bytes()
    assert cli("validate", run, "--engine-log", f"int8={log}").exit_code == 2
    assert cli("validate", run, "--engine-log", tmp_path / "none.log").exit_code == 3
    assert (run / "report.json").read_bytes() == before


def test_doctor_finds_a_cpu_and_json_is_only_json(shell):
    shown = shell("doctor")
    assert shown.returncode == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    diagnosis = json.loads(shell("doctor", "--json").stdout)
    providers = {p["name"]: p for p in diagnosis["providers"]}
    assert providers["cpu"]["loads"] is True
    assert set(providers) == {"cpu", "cuda", "tensorrt", "tensorrt-rtx"}
    for provider in providers.values():
        assert provider["loads"] or (provider["problem"] and provider["fix"])
