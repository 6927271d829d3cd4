"""Models of every task from end to end: metrics from the ONNX files, goals met and missed, pages rendered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from snowsdeploy.errors import DataError, SnowsDeployError, UsageError
from snowsdeploy.progress import NullObserver
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages.debug import run_debug_accuracy
from snowsdeploy.stages.job import run_main_job
from snowsdeploy.values import Report
from snowsdeploy_exporters import OnnxExporter

HERE = "tests.stages.test_any_task"


class UNet(nn.Module):
    """Scores of three classes for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.mid, self.up = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(24, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image).relu()
        y = self.mid(self.down(x).relu()).relu()
        return self.head(self.up(torch.cat([x, interpolate(y, scale_factor=2.0)], 1)).relu())


class Upscaler(nn.Module):
    """Twice the size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.mid, self.last = (
            nn.Conv2d(3, 16, 3, 1, 1),
            nn.Conv2d(16, 16, 3, 1, 1),
            nn.Conv2d(16, 12, 3, 1, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        detail = nn.functional.pixel_shuffle(self.last(self.mid(self.first(image).relu()).relu()), 2)
        return interpolate(image, scale_factor=2.0) + 0.1 * detail


class Embedder(nn.Module):
    """A vector of length one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
        self.last = nn.Linear(16, 12)

    def forward(self, image: Tensor) -> Tensor:
        return normalize(self.last(self.body(image).mean((2, 3))))


class TwoHeads(nn.Module):
    """Scores, and a number."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
        self.scores, self.size = nn.Linear(16, 4), nn.Linear(16, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.body(image).mean((2, 3))
        return {"scores": self.scores(x), "size": self.size(x)[:, 0]}


def heads(predict: Any, data: Any) -> Mapping[str, object]:
    """One metric a head: a value an item of the first, a number of the second."""
    right: list[bool] = []
    errors: list[float] = []
    for inputs, targets in data:
        outputs = predict(inputs)
        for item, target in enumerate(targets):
            right.append(bool(outputs["scores"][item].argmax() == target["label"]))
            errors.append(abs(float(outputs["size"][item]) - float(target["size"])))
    return {"label_accuracy": np.array(right, dtype=float), "size_score": 100 - float(np.mean(errors))}


IMAGES = torch.rand(48, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def masks() -> list[tuple[Tensor, Tensor]]:
    """Those of the model itself, so that the dense model is right; a border does not count."""
    found = UNet().eval()(IMAGES).argmax(1)
    found[:, 0] = 255
    return [(IMAGES, found)]


def large_images() -> list[tuple[Tensor, Tensor]]:
    return [(IMAGES, Upscaler().eval()(IMAGES).detach().clamp(0, 1))]


def alike() -> list[tuple[Tensor, Tensor]]:
    noise = 0.01 * torch.randn(48, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    return [(IMAGES[torch.arange(48) // 2] + noise, torch.arange(48) // 2)]


def two_targets() -> list[tuple[Tensor, dict[str, Tensor]]]:
    outputs = TwoHeads().eval()(IMAGES)
    return [(IMAGES, {"label": outputs["scores"].argmax(1), "size": outputs["size"].detach()})]


def run(out: Path, model: str, items: str, **more: object) -> Report:
    config = {
        "model": f"{HERE}:{model}",
        "data": f"{HERE}:{items}",
        "eval_data": f"{HERE}:{items}",
        "effort": "fast",
        "latency_batch": (1,),
        "latency_runs": 5,
        "out": out,
        **more,
    }
    return run_main_job(read_settings(MainJob, config), OnnxExporter(), observer=NullObserver())


def rules(report: Report) -> dict[str, str]:
    assert report.verdict is not None
    return {rule.rule: rule.verdict for rule in report.verdict.rules}


CASES = [
    ("UNet", "masks", {"ignore_index": 255}, "segment", "miou", "mean IoU", "miou drop<=0.0001"),
    ("Upscaler", "large_images", {}, "restore", "psnr", "PSNR", "psnr drop<=0.0001"),
    ("Embedder", "alike", {}, "embed", "recall@1", "recall@1", "recall@1>=1.1"),
    (
        "TwoHeads",
        "two_targets",
        {"metric": (f"{HERE}:heads",)},
        "classify",
        "label_accuracy",
        "label_accuracy",
        "size_score>=101",
    ),
]


@pytest.mark.parametrize(("model", "data", "more", "task", "name", "label", "missed"), CASES)
def test_a_task_is_judged_by_its_metric_on_goals_met_and_missed(
    tmp_path: Path, model: str, data: str, more: dict[str, object], task: str, name: str, label: str, missed: str
) -> None:
    report = run(tmp_path / "run", model, data, metric_goal=(f"{name} drop<=99", missed), **more)
    found = report.variants[0].accuracy
    assert found is not None
    assert found.task == task
    assert found.metric is not None
    assert (found.metric.name, found.metric.label) == (name, label)
    assert not found.calibration
    last = missed.partition("drop")[0].partition(">")[0].strip()
    if last == name and "drop" in missed:
        assert rules(report)[f"{label} drop"] == "fail"  # the later goal counts
    else:
        assert rules(report)[f"{label} drop"] == "pass"
        assert rules(report)[last] == "fail"
    for file in ("report.html", "summary.md"):
        assert label in (tmp_path / "run" / file).read_text(encoding="utf-8")
    costs = run_debug_accuracy(tmp_path / "run", None, GatePolicy(max_drop=99), NullObserver())
    assert costs.units
    assert costs.suggestion is not None


def test_layers_are_kept_dense_for_any_metric(tmp_path: Path) -> None:
    goal = ("miou drop<=12",)
    poor = {"selector": "magnitude", "solver": "none", "keep_dense_until_gate": True}
    report = run(tmp_path / "run", "UNet", "masks", ignore_index=255, metric_goal=goal, **poor)
    assert any(note.startswith("kept dense for the gate") for note in report.prune.notes)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"task": "restore"}, DataError),
        ({}, DataError),  # the masks' border is no class
        ({"ignore_index": 255, "metric": ("no_such_module_here:f",)}, UsageError),
        ({"ignore_index": 255, "metric_goal": ("miou falls",)}, UsageError),
    ],
)
def test_what_does_not_fit_is_refused_before_the_solve(
    tmp_path: Path, more: dict[str, object], error: type[SnowsDeployError]
) -> None:
    with pytest.raises(error):
        run(tmp_path / "run", "UNet", "masks", **more)
    assert not (tmp_path / "run").exists()


def test_without_evaluation_data_agreement_is_that_of_the_calibration(tmp_path: Path) -> None:
    report = run(tmp_path / "run", "UNet", "masks", eval_data=None, metric_goal=())
    found = report.variants[0].accuracy
    assert found is not None
    assert found.calibration
    assert found.metrics == ()
    assert rules(report)["accuracy drop"] == "inconclusive"
    assert "calibration" in (tmp_path / "run" / "summary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("goal", "near"), [("recall_at_1>=0.9", "recall@1"), ("top1 drop<=1", "recall@1")])
def test_a_goal_of_a_metric_that_the_task_has_not_is_refused_at_the_start(tmp_path: Path, goal: str, near: str) -> None:
    with pytest.raises(UsageError, match="--metric-goal names no metric of --task embed") as refused:
        run(tmp_path / "run", "Embedder", "alike", task="embed", metric_goal=(goal,))
    assert near in str(refused.value)
    assert not (tmp_path / "run").exists()
