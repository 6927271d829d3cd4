"""From a model that is no image classifier to its files and report, through every stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from snowsdeploy.progress import NullObserver, Observer
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages.job import run_main_job
from snowsdeploy.values import Report
from snowsdeploy_exporters import OnnxExporter

HERE = "tests.stages.test_any_model"


class TwoInputs(nn.Module):
    """Gives scores, a half, a choice and a truth value."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.vector, self.mix, self.head = nn.Linear(4, 8), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, image: Tensor, meta: Tensor) -> dict[str, Tensor]:
        x = torch.cat([self.image(image).mean((2, 3)), self.vector(meta)], 1)
        scores = self.head(self.mix(x).relu())
        half = scores.sigmoid().half()
        return {"scores": scores, "half": half, "best": scores.argmax(1), "sure": scores.amax(1) > 0}


class Tokens(nn.Module):
    """Words to classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.up, self.down = nn.Embedding(9, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.down(self.up(self.table(ids)).relu()).mean(1))


class ItemByItem(nn.Module):
    """Its batch is a number to it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.mix, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        rows = [self.conv(x[i : i + 1]).relu().mean((2, 3)) for i in range(len(x))]
        return self.head(self.mix(torch.cat(rows)).relu())


def convolutions() -> nn.Module:
    """Takes images of any size."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)]
    return nn.Sequential(*layers)


class Told(NullObserver):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def run(folder: Path, model: str, arrays: dict[str, Any], *, observer: Observer | None = None, **more: Any) -> Report:
    np.savez(folder / "data.npz", **arrays)
    given = {"effort": "fast", "latency_batch": (1,), "latency_runs": 5, "out": folder / "run"}
    settings = read_settings(MainJob, {"model": f"{HERE}:{model}", "data": str(folder / "data.npz")} | given | more)
    report = run_main_job(settings, OnnxExporter(), observer=observer)
    assert report is not None
    return report


def random(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def shapes(folder: Path) -> dict[str, list[str | int]]:
    """Name -> dimensions of inputs and outputs in the sparse file."""
    graph = onnx.load(folder / "run" / "model.onnx").graph
    return {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.input, *graph.output)
    }


def test_two_inputs_and_four_outputs_keep_their_names(tmp_path: Path) -> None:
    arrays = {"image": random(16, 3, 8, 8), "meta": random(16, 4), "y": np.arange(16) % 5}
    report = run(tmp_path, "TwoInputs", arrays, eval_data=str(tmp_path / "data.npz"), precision=("fp32", "fp16"))
    expected = {"image": ["batch", 3, 8, 8], "meta": ["batch", 4], "scores": ["batch", 5], "half": ["batch", 5]}
    assert shapes(tmp_path) == expected | {"best": ["batch"], "sure": ["batch"]}
    parity = report.variants[0].parity
    assert parity is not None
    assert {row.output: row.dtype for row in parity.rows} == {
        "scores": "float32",
        "half": "float16",
        "best": "int64",
        "sure": "bool",
    }
    assert parity.worst_relative_l2 < 1e-5
    assert report.variants[0].accuracy is not None
    assert report.preprocessing is None
    assert report.prune.pruned


def test_tokens_go_in_as_whole_numbers(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 9, (16, 6))
    report = run(tmp_path, "Tokens", {"ids": ids, "y": ids[:, 0] % 3}, input={"ids": "6:int64"})
    assert shapes(tmp_path) == {"ids": ["batch", 6], "output": ["batch", 3]}
    assert [d.name for d in report.prune.pruned] == ["up", "down"]


def test_a_fixed_batch_stays_fixed_to_the_end(tmp_path: Path) -> None:
    arrays = {"x": random(14, 3, 8, 8), "y": np.arange(14) % 5}
    more = {"static_batch": 4, "mean": (0.5,) * 3, "std": (0.5,) * 3, "eval_data": str(tmp_path / "data.npz")}
    told = Told()
    report = run(tmp_path, "ItemByItem", arrays, observer=told, **more)
    assert told.warnings[:2] == [
        "2 items of --data are left out: the model takes 4 at once",
        "2 items of --eval-data are left out: the model takes 4 at once",
    ]
    assert shapes(tmp_path) == {"input": [4, 3, 8, 8], "output": [4, 5]}
    assert report.prune.calibration.items == 12
    assert report.variants[0].accuracy is not None
    assert report.variants[0].accuracy.data.items == 12
    assert report.variants[0].latency is not None
    assert {row.batch for row in report.variants[0].latency.series} == {4}


def test_height_and_width_vary_in_the_file_and_are_timed_where_asked(tmp_path: Path) -> None:
    more = {
        "dynamic": ("height=4..16", "width"),
        "latency_size": ("8x8", "16x12"),
        "mean": (0.5,) * 3,
        "std": (1.0,) * 3,
    }
    report = run(tmp_path, "convolutions", {"x": random(16, 3, 8, 8)}, **more)
    assert shapes(tmp_path)["input"] == ["batch", 3, "height", "width"]
    latency, parity = report.variants[0].latency, report.variants[0].parity
    assert latency is not None
    assert [ratio.at for ratio in latency.ratios] == ["1 of 8x8", "1 of 16x12"]
    assert parity is not None
    assert parity.worst_relative_l2 < 1e-5
    assert len(parity.rows) > 3


@pytest.mark.parametrize("text", ["17x8", "3x8"])
def test_a_size_outside_the_range_is_known_before_anything_is_solved(tmp_path: Path, text: str) -> None:
    more = {"dynamic": ("height=4..16",), "latency_size": (text,), "mean": (0.5,) * 3, "std": (1.0,) * 3}
    with pytest.raises(Exception, match="--latency-size is no size"):
        run(tmp_path, "convolutions", {"x": random(16, 3, 8, 8)}, **more)
    assert not (tmp_path / "run").exists()
