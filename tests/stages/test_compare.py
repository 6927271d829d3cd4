"""Selectors under solvers: every run reported, none repeated, failures named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from snowsdeploy.progress import NullObserver
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages import compare as module
from snowsdeploy.stages.compare import compare
from snowsdeploy.values import Comparison
from snowsdeploy_exporters import OnnxExporter


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "images.npz"
    np.savez(path, x=rng.standard_normal((24, 3, 8, 8)).astype(np.float32), y=rng.integers(0, 5, 24))
    return path


def configs(folder: Path, images: Path, **runs: dict[str, object]) -> dict[str, MainJob]:
    given = {
        "model": "tests.nets:TinyCNN",
        "data": str(images),
        "eval_data": str(images),
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
        "latency_batch": (1,),
        "latency_runs": 5,
    }
    return {name: read_settings(MainJob, given | run | {"out": folder / name}) for name, run in runs.items()}


def test_runs_are_compared_and_not_repeated(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "comparison"
    wanted = {
        "masks": {"selector": "magnitude", "solver": "none"},
        "solved": {"selector": "magnitude", "solver": "k0"},
    }
    found = compare(folder, configs(folder, images, **wanted), OnnxExporter(), NullObserver())
    first, second = found.runs
    assert (first.solver, second.solver) == ("none", "k0")
    assert first.accuracy is not None
    assert second.accuracy is not None
    kl = [run.agreement[-1].measured.value for run in (first.accuracy, second.accuracy)]
    assert 0 <= kl[1] < kl[0]
    assert first.accuracy.metric is not None
    assert first.accuracy.metric.sparse.items == 24
    assert Comparison.model_validate_json((folder / "comparison.json").read_text()) == found
    assert "magnitude" in (folder / "comparison.html").read_text()

    ran: list[str] = []
    real = module.run_main_job
    monkeypatch.setattr(module, "run_main_job", lambda c, *a, **k: (ran.append(c.out.name), real(c, *a, **k))[1])
    wanted["masks"] = {"selector": "wanda", "solver": "none"}
    again = compare(folder, configs(folder, images, **wanted), OnnxExporter(), NullObserver())
    assert ran == ["masks"]  # its settings changed
    assert again.runs[1] == second


def test_a_run_that_fails_is_named_and_the_others_go_on(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    runs = {
        "bad": {"selector": "lm", "solver": "none", "labels": "sampled"},
        "good": {"selector": "magnitude", "solver": "none"},
    }
    bad, good = compare(folder, configs(folder, images, **runs), OnnxExporter(), NullObserver()).runs
    assert bad.problem
    assert bad.accuracy is None
    assert not good.problem
    assert good.accuracy is not None
