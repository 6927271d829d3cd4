"""Files side by side: every file timed, time attributed, intervals that hold under a drifting machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from snowsdeploy.sparsity.pattern import Pattern
from snowsdeploy.validation.ort import OrtSession
from snowsdeploy.validation.profile import BLOCK, make_input, profile_files, ratio, warm_up
from snowsdeploy_exporters import OnnxExporter
from tests.exporters.nets import prune
from tests.nets import TinyCNN, make_program

P24 = Pattern(2, 4)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("profile")
    dense = make_program(TinyCNN())
    sparse, _ = prune(dense, P24)
    return [
        OnnxExporter().export(program, folder / f"{role}.onnx", role, {}).path
        for role, program in (("dense", dense), ("sparse", sparse))
    ]


def test_every_file_is_timed_and_its_time_attributed(files: list[Path], tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    found = profile_files(files, "cpu", (1, 4), runs=20, pattern=P24, trace=trace)
    assert [(row.file, row.batch) for row in found.series] == [(f, b) for b in (1, 4) for f in files]
    assert all(row.runs == 20 for row in found.series)
    for row in found.series:
        assert row.p50_low_ms <= row.p50_ms <= row.p50_high_ms
        assert row.p50_ms <= row.p90_ms <= row.p95_ms <= row.p99_ms
        assert row.images_per_second == pytest.approx(1000 * row.batch / row.p50_ms)
    assert [(r.file, r.baseline, r.batch) for r in found.ratios] == [(files[1], files[0], b) for b in (1, 4)]
    dense, sparse = found.files
    for file in (dense, sparse):
        assert sum(row.share for row in file.operators) == pytest.approx(1)
        assert file.best_speedup == pytest.approx(1 / (1 - file.pruned_share / 2))
    assert dense.pruned_share == 0
    assert 0 < sparse.pruned_share < 1
    assert {event["cat"] for event in json.loads(trace.read_text())} >= {"Node", "Session"}


def test_inputs_have_the_files_own_shape(files: list[Path]) -> None:
    images = make_input(OrtSession.open(files[0]), 3)
    assert images.shape == (3, 3, 8, 8)
    assert images.dtype == np.float32


def test_warm_up_ends_when_calls_agree_or_often_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**9, 10**3))
    monkeypatch.setattr("snowsdeploy.validation.profile.time.perf_counter_ns", lambda: next(clock))
    assert warm_up(lambda: None) == 10
    growing = iter(np.cumsum(1.1 ** np.arange(200) * 1e3).astype(int).tolist())
    monkeypatch.setattr("snowsdeploy.validation.profile.time.perf_counter_ns", lambda: next(growing))
    assert warm_up(lambda: None) == 60


def test_the_same_file_twice_is_rarely_called_different_while_the_machine_drifts() -> None:
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        state = np.cumsum(rng.normal(0, 0.02, (20, 1)), axis=0)  # of the machine, shared by a round
        first, second = (np.exp(state + rng.normal(0, 0.05, (20, BLOCK))) for _ in range(2))
        found = ratio((Path("a"), first), (Path("b"), second), 1, rng)
        alarms += not found.low <= 1 <= found.high
    assert alarms <= 12  # 5 expected


def test_a_tenth_slower_is_found() -> None:
    missed = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        state = np.cumsum(rng.normal(0, 0.02, (20, 1)), axis=0)
        first, second = (slow * np.exp(state + rng.normal(0, 0.05, (20, BLOCK))) for slow in (1.0, 1.1))
        missed += not ratio((Path("a"), first), (Path("b"), second), 1, rng).high < 1
    assert missed <= 3
