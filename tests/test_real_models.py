"""Real checkpoints through the main job; the long ones are marked slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.models import DEIT_TINY, RESNET20
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages.job import run_main_job
from snowsdeploy.values import Report
from snowsdeploy_exporters import OnnxExporter


def run(monkeypatch: pytest.MonkeyPatch, data: Path, out: Path, options: dict[str, object]) -> Report:
    monkeypatch.chdir(data)
    return run_main_job(read_settings(MainJob, options | {"out": out, "latency_batch": (1,)}), OnnxExporter())


def top1(report: Report) -> tuple[float, float]:
    assert report.variants[0].accuracy is not None
    metric = report.variants[0].accuracy.metric
    assert metric is not None
    return 100 * metric.dense.value, 100 * metric.sparse.value


def test_resnet20_exact_fit_with_few_images(monkeypatch: pytest.MonkeyPatch, real_data: Path, tmp_path: Path) -> None:
    options = RESNET20 | {"samples": 128, "horizon": 0, "eval_data": "cifar10_test.npz[:2000]"}
    report = run(monkeypatch, real_data, tmp_path / "run", options)
    dense, sparse = top1(report)
    assert len(report.prune.pruned) == 18
    assert dense > 90
    assert sparse > 86  # magnitude alone leaves about 71
    assert report.variants[0].parity is not None
    assert report.variants[0].parity.worst_relative_l2 < 1e-4


@pytest.mark.slow
def test_resnet20_at_default_effort(monkeypatch: pytest.MonkeyPatch, real_data: Path, tmp_path: Path) -> None:
    report = run(monkeypatch, real_data, tmp_path / "run", RESNET20)
    dense, sparse = top1(report)
    assert dense == pytest.approx(91.69, abs=0.01)
    assert sparse >= 91.3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_deit_tiny_at_default_effort(monkeypatch: pytest.MonkeyPatch, real_data: Path, tmp_path: Path) -> None:
    report = run(monkeypatch, real_data, tmp_path / "run", DEIT_TINY)
    assert len(report.prune.pruned) == 48
    assert top1(report)[1] >= 60
