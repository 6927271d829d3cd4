"""The main job and its stages on a model without an architecture's name, from a module in the current directory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession

from snowsdeploy.distributed import Launch
from snowsdeploy.errors import DataError, OutputError, ProviderError, SnowsDeployError, UsageError
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.progress import NullObserver
from snowsdeploy.report.store import read_report
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages.inspect import inspect_file, unmet
from snowsdeploy.stages.job import run_main_job, run_prune
from snowsdeploy.stages.later import run_export, run_validate
from snowsdeploy.stages.run_directory import RunDirectory
from snowsdeploy.values import Report
from snowsdeploy_exporters import OnnxExporter

FACTORY = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        return x + self.conv2(torch.relu(self.norm(self.conv1(x))))


def build(classes=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
"""


PERMUTED = "snowsdeploy.permutation"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: a module and two data files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_model_for_test.py").write_text(FACTORY)
    rng = np.random.default_rng(0)
    for name, count in (("calibration", 32), ("test", 40)):
        pixels = rng.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", x=pixels, y=rng.integers(0, 4, count))
    return tmp_path


def settings(folder: Path, **options: object) -> MainJob:
    values: dict[str, object] = {
        "model": "my_model_for_test:build",
        "data": "calibration.npz",
        "eval_data": "test.npz",
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
        "latency_batch": (1,),
        "latency_runs": 5,
        "out": folder / "run",
    }
    return read_settings(MainJob, values | options)


def test_the_main_job_leaves_a_report_that_matches_its_files(folder: Path) -> None:
    config = settings(folder, metadata=["names={0: 'cat', 1: 'x=y'}", "stride=32"])
    report = run_main_job(config, OnnxExporter(), command="snowsdeploy prune-export ...")
    run = RunDirectory(folder / "run")
    assert read_report(run.report) == report
    assert {p.name for p in run.path.iterdir()} == {
        "config.toml", "program.pt2", "pruned.safetensors", "masks.safetensors", "prune.json", "dense.onnx",
        "model.onnx", "export.json", "report.json", "summary.md", "report.html", ".snowsdeploy",
    }  # fmt: skip
    assert [d.name for d in report.prune.pruned] == ["1.conv1", "1.conv2"]
    assert report.variants[0].parity is not None
    assert report.variants[0].parity.worst_relative_l2 < 1e-4
    assert {row.batch for row in report.variants[0].parity.rows} == {1, 2, 8}
    assert report.variants[0].accuracy is not None
    assert report.variants[0].accuracy.metric is not None
    assert report.verdict is not None
    metadata = {p.key: p.value for p in onnx.load(run.onnx("sparse")).metadata_props}
    assert metadata["snowsdeploy.pattern"] == "2:4"
    assert (metadata["names"], metadata["stride"]) == ("{0: 'cat', 1: 'x=y'}", "32")
    assert "gate" in run.summary.read_text()
    assert read_settings(MainJob, {"out": folder / "again"}, run.config).metadata == config.metadata


def test_stages_alone_give_what_the_main_job_gives(folder: Path) -> None:
    whole = run_main_job(settings(folder), OnnxExporter())
    config = settings(folder, out=folder / "stages")
    run_prune(config)
    artifacts = run_export(config.out, {}, lambda _: OnnxExporter())
    given = {"eval_data": "test.npz", "latency_batch": (1,), "latency_runs": 5}
    report = run_validate(config.out, given, policy=GatePolicy())
    assert artifacts.fp32.sparse.sha256 == whole.variants[0].sparse.sha256
    assert report.variants[0].accuracy == whole.variants[0].accuracy
    assert report.variants[0].parity == whole.variants[0].parity


def test_two_runs_write_identical_models(folder: Path) -> None:
    first = run_main_job(settings(folder), OnnxExporter())
    second = run_main_job(settings(folder, force=True), OnnxExporter())
    assert first.variants[0].sparse.sha256 == second.variants[0].sparse.sha256


def test_without_labels_there_is_agreement_and_no_accuracy(folder: Path) -> None:
    np.savez(folder / "bare.npz", x=np.zeros((16, 12, 12, 3), np.uint8))
    report = run_main_job(settings(folder, eval_data="bare.npz"), OnnxExporter())
    assert report.variants[0].accuracy is not None
    assert report.variants[0].accuracy.metric is None
    assert report.verdict is not None
    assert "agreement, same class" in {r.rule for r in report.verdict.rules}


def test_without_evaluation_data_the_verdict_is_inconclusive(folder: Path) -> None:
    report = run_main_job(settings(folder, eval_data=None), OnnxExporter())
    assert report.verdict is not None
    assert report.verdict.verdict == "inconclusive"
    assert any("--eval-data" in text for text in report.warnings)


def test_shared_images_are_warned_about(folder: Path) -> None:
    report = run_main_job(settings(folder, eval_data="calibration.npz[20:]"), OnnxExporter())
    assert any("12 images" in text for text in report.warnings)
    apart = run_main_job(
        settings(folder, data="test.npz[0::2]", eval_data="test.npz[1::2]", force=True), OnnxExporter()
    )
    assert not apart.warnings


def test_another_pattern(folder: Path) -> None:
    report = run_main_job(settings(folder, pattern="1:4"), OnnxExporter())
    evidence = inspect_file(folder / "run" / "model.onnx", Pattern(1, 4))
    assert unmet(evidence, ["1.conv*"]) == []
    assert report.prune.pattern == "1:4"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"data": "nowhere/images", "input_size": (3, 12, 12)}, DataError),
        ({"eval_data": "missing.npz"}, DataError),
        ({"provider": "tensorrt"}, ProviderError),
        ({"mean": (0.5,)}, UsageError),
        ({"exclude": ("nothing*",)}, UsageError),
    ],
)
def test_bad_input_is_one_error_and_leaves_nothing(folder: Path, options: dict[str, object], error: type) -> None:
    with pytest.raises(error) as caught:
        run_main_job(settings(folder, **options), OnnxExporter())
    assert isinstance(caught.value, SnowsDeployError)
    assert not (folder / "run").exists()


def test_a_directory_in_use_is_not_touched(folder: Path) -> None:
    run = folder / "run"
    run.mkdir()
    (run / "precious.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        run_main_job(settings(folder), OnnxExporter())
    assert [p.name for p in run.iterdir()] == ["precious.txt"]
    run_main_job(settings(folder, force=True), OnnxExporter())
    assert (run / "precious.txt").read_text() == "mine"


def test_a_changed_export_is_not_validated(folder: Path) -> None:
    run_main_job(settings(folder), OnnxExporter())
    sparse = folder / "run" / "model.onnx"
    sparse.write_bytes(sparse.read_bytes() + b"\0")
    with pytest.raises(OutputError, match="changed since its export"):
        run_validate(folder / "run", {}, policy=GatePolicy())


def test_a_folder_that_is_no_run_is_an_error(folder: Path) -> None:
    with pytest.raises(OutputError, match="holds no pruning run"):
        run_export(folder, {}, lambda _: OnnxExporter())


def test_a_weight_that_is_not_finite_is_an_error(folder: Path) -> None:
    (folder / "nan_model_for_test.py").write_text(
        FACTORY + "\n\ndef broken():\n    m = build()\n    m[1].conv1.weight.data[0, 0] = float('nan')\n    return m\n"
    )
    with pytest.raises(SnowsDeployError, match="NaN or Inf") as caught:
        run_main_job(settings(folder, model="nan_model_for_test:broken"), OnnxExporter())
    assert "1.conv1.weight" in str(caught.value)


def test_the_report_is_plain_json_with_a_schema_version(folder: Path) -> None:
    run_main_job(settings(folder), OnnxExporter())
    content = json.loads((folder / "run" / "report.json").read_text())
    assert content["schema_version"] == 1
    assert Report.model_validate(content).source.format == "factory"
    assert torch.__version__.startswith(content["environment"]["versions"]["torch"])


def test_permuted_channels_are_in_both_files_and_in_the_report(folder: Path) -> None:
    plain = run_main_job(settings(folder, out=folder / "plain", permute=False, effort="fast"), OnnxExporter())
    report = run_main_job(settings(folder, effort="fast"), OnnxExporter())
    found = report.prune.permutation
    assert plain.prune.permutation is None
    assert found is not None
    assert [g.layers for g in found.groups] == [("1.conv1",), ("1.conv2",)]
    assert all(g.kept_after >= g.kept_before for g in found.groups)
    assert any(g.kept_after > g.kept_before for g in found.groups)
    assert not found.refused
    assert found.error < 1e-5
    assert found.score == "inputs"
    before, after = (onnx.load(folder / name / "dense.onnx") for name in ("plain", "run"))
    assert [n.op_type for n in before.graph.node] == [n.op_type for n in after.graph.node]
    assert {p.key: p.value for p in before.metadata_props}[PERMUTED] == "none"
    assert {p.key: p.value for p in after.metadata_props}[PERMUTED] == str(found)
    images = np.random.default_rng(0).normal(size=(4, 3, 12, 12)).astype(np.float32)
    sessions = [InferenceSession(folder / name / "dense.onnx") for name in ("plain", "run")]
    outputs = [session.run(None, {session.get_inputs()[0].name: images})[0] for session in sessions]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-6)
    assert run_validate(folder / "run", {"latency_runs": 5}, policy=GatePolicy()).prune.permutation == found


@pytest.mark.parametrize("score", ["magnitude", "curvature"])
def test_a_permutation_by_another_score_gains_in_that_score(folder: Path, score: str) -> None:
    found = run_prune(settings(folder, permute=True, permute_score=score, effort="fast")).report.permutation
    assert found is not None
    assert found.score == score
    assert found.kept[1] > found.kept[0]


def test_permuting_needs_groups(folder: Path) -> None:
    with pytest.raises(UsageError, match="--permute needs groups"):
        settings(folder, permute=True, pattern="50%")
    assert not settings(folder, pattern="50%").permutes


class Stages(NullObserver):
    """Keeps the stages that ran."""

    def __init__(self) -> None:
        self.begun = list[str]()

    def stage(self, name: str, detail: str = "") -> None:
        self.begun.append(name)


def test_what_torchrun_starts_again_takes_up_its_own_run_and_no_other(folder: Path) -> None:
    (folder / "strict.toml").write_text("[gate]\nmin_speedup = 1000\n")
    config, exporter, observer = settings(folder, policy=folder / "strict.toml"), OnnxExporter(), Stages()
    judged = run_main_job(config, exporter, launch=Launch("job", again=False))
    assert judged is not None
    assert judged.verdict is not None
    assert judged.verdict.verdict == "fail"  # what ended it, and made torchrun start it again
    assert run_main_job(config, exporter, observer=observer, launch=Launch("job", again=True)) == judged
    assert observer.begun == []
    for other in (Launch("another job", again=True), Launch("job", again=False), None):
        with pytest.raises(OutputError, match="--out is not empty"):
            run_main_job(config, exporter, launch=other)
    config.out.joinpath("report.json").unlink()  # ended between the solve and its judgement
    assert run_main_job(config, exporter, observer=observer, launch=Launch("job", again=True)) is not None
    assert observer.begun == ["export", "accuracy", "validate"]
    for name in ("report.json", "prune.json"):  # ended before
        config.out.joinpath(name).unlink()
    assert run_main_job(config, exporter, observer=observer, launch=Launch("job", again=True)) is not None
    assert "prune" in observer.begun
