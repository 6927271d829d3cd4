"""Files side by side: every file timed, time attributed, intervals that hold under a drifting machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from snowsdeploy.errors import SourceError, UsageError
from snowsdeploy.measure.memory import peak_memory
from snowsdeploy.measure.profile import BLOCK, contestants, profile, profile_files, ratio, warm_up
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.settings.profile import ProfileSettings
from snowsdeploy.settings.read import read_settings
from snowsdeploy.settings.runtime import RuntimeSettings
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
    found = profile_files(contestants(files, RuntimeSettings()), (1, 4), runs=20, pattern=P24, trace=trace)
    assert [(row.file, row.batch) for row in found.series] == [(f, b) for b in (1, 4) for f in files]
    assert all(row.runs == 20 for row in found.series)
    for row in found.series:
        assert row.p50_low_ms <= row.p50_ms <= row.p50_high_ms
        assert row.p50_ms <= row.p90_ms <= row.p95_ms <= row.p99_ms
        assert row.images_per_second == pytest.approx(1000 * row.batch / row.p50_ms)
    assert [(r.name, r.baseline, r.batch) for r in found.ratios] == [("sparse.onnx", "dense.onnx", b) for b in (1, 4)]
    dense, sparse = found.files
    for file in (dense, sparse):
        assert sum(row.share for row in file.operators) == pytest.approx(1)
        assert file.best_speedup == pytest.approx(1 / (1 - file.pruned_share / 2))
    assert dense.pruned_share == 0
    assert 0 < sparse.pruned_share < 1
    assert {event["cat"] for event in json.loads(trace.read_text())} >= {"Node", "Session"}


def test_inputs_have_the_files_own_shape(files: list[Path]) -> None:
    images = OrtSession.open(files[0]).random_inputs(3)
    assert images.shape == (3, 3, 8, 8)
    assert images.dtype == np.float32


def test_a_file_is_told_apart_by_its_folder_or_refused(files: list[Path]) -> None:
    twin = files[0].parent / "other" / files[0].name
    names = [c.name for c in contestants([files[0], twin], RuntimeSettings())]
    assert names == [f"{files[0].parent.name}/dense.onnx", "other/dense.onnx"]
    with pytest.raises(UsageError, match="told apart"):
        contestants([files[0], files[0]], RuntimeSettings())


def test_on_a_gpu_files_run_with_and_without_copies_and_sparse_kernels(files: list[Path]) -> None:
    runtime = RuntimeSettings(provider="tensorrt", provider_option={"device_id": "1"})
    found = contestants(files[1:], runtime, sparsity_off=True)
    assert [(c.name, c.copies) for c in found] == [
        ("sparse.onnx", "included"), ("sparse.onnx, sparsity off", "included"),
        ("sparse.onnx", "excluded"), ("sparse.onnx, sparsity off", "excluded"),
    ]  # fmt: skip
    assert found[1].runtime.provider_option == {"device_id": "1", "trt_sparsity_enable": "0"}
    graph = contestants(files[1:], runtime, cuda_graph=True)
    assert [(c.copies, c.runtime.provider_option["trt_cuda_graph_enable"]) for c in graph] == [("excluded", "1")]


@pytest.mark.parametrize("flag", ["sparsity_off", "cuda_graph"])
def test_the_cpu_has_neither_sparse_kernels_nor_graphs(files: list[Path], flag: str) -> None:
    with pytest.raises(UsageError, match="has no meaning here"):
        contestants(files, RuntimeSettings(), **{flag: True})


def test_calls_without_copies_are_timed_too(files: list[Path]) -> None:
    (file,) = contestants(files[:1], RuntimeSettings())
    found = profile_files([file, replace(file, copies="excluded")], (2,), runs=10, pattern=P24)
    assert [row.copies for row in found.series] == ["included", "excluded"]
    assert found.ratios == ()  # one file of each kind


def test_peak_memory_holds_the_weights_and_grows_with_the_batch(tmp_path: Path) -> None:
    size = 4096
    weight = helper.make_tensor(
        "w", TensorProto.FLOAT, [size, size], np.ones((size, size), np.float32).tobytes(), raw=True
    )
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", size]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    path = tmp_path / "big.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    small, device = peak_memory(path, RuntimeSettings(), 1)
    large, _ = peak_memory(path, RuntimeSettings(), 2048)
    assert device is None
    assert small > 4 * size * size
    assert large - small > 4 * size * 2048  # an input and an output, of which the input was there twice


def test_warm_up_ends_when_calls_agree_or_often_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**9, 10**3))
    monkeypatch.setattr("snowsdeploy.measure.profile.time.perf_counter_ns", lambda: next(clock))
    assert warm_up(lambda: None) == 10
    growing = iter(np.cumsum(1.1 ** np.arange(200) * 1e3).astype(int).tolist())
    monkeypatch.setattr("snowsdeploy.measure.profile.time.perf_counter_ns", lambda: next(growing))
    assert warm_up(lambda: None) == 60


def test_the_same_file_twice_is_rarely_called_different_while_the_machine_drifts() -> None:
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        state = np.cumsum(rng.normal(0, 0.02, (20, 1)), axis=0)  # of the machine, shared by a round
        first, second = (np.exp(state + rng.normal(0, 0.05, (20, BLOCK))) for _ in range(2))
        found = ratio(("a", first), ("b", second), 1, rng)
        alarms += not found.low <= 1 <= found.high
    assert alarms <= 12  # 5 expected


def test_a_tenth_slower_is_found() -> None:
    missed = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        state = np.cumsum(rng.normal(0, 0.02, (20, 1)), axis=0)
        first, second = (slow * np.exp(state + rng.normal(0, 0.05, (20, BLOCK))) for slow in (1.0, 1.1))
        missed += not ratio(("a", first), ("b", second), 1, rng).high < 1
    assert missed <= 3


def test_a_file_that_is_no_onnx_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(SourceError, match="cannot be read as ONNX"):
        profile([tmp_path / "report.json"], ProfileSettings())


def varying(path: Path, shape: list[str | int]) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_axes_that_vary_have_the_sizes_that_are_given(tmp_path: Path) -> None:
    path = varying(tmp_path / "m.onnx", ["batch", 3, "height", "width"])
    with pytest.raises(UsageError, match="nothing says their size") as caught:
        profile([path], ProfileSettings(runs=10, axis={"height": "16"}))
    assert (caught.value.seen, caught.value.fix) == ("width of x", "--axis width=N")
    settings = ProfileSettings(runs=10, axis={"height": "16", "width": "24"}, memory=True)
    found = profile([path], settings)
    assert found.series[0].host_bytes is not None
    inputs = OrtSession.open(path).random_inputs(2, settings.axes)
    assert np.shape(inputs) == (2, 3, 16, 24)


def test_a_fixed_number_of_items_is_not_called_another(tmp_path: Path) -> None:
    path = varying(tmp_path / "m.onnx", [4, 3])
    with pytest.raises(UsageError, match="takes another number of items") as caught:
        profile([path], ProfileSettings(runs=10))
    assert caught.value.fix == "--batch 4"
    assert profile([path], ProfileSettings(runs=10, batch=(4,))).series[0].batch == 4


@pytest.mark.parametrize("text", ["height", "height=0", "height=wide"])
def test_sizes_are_whole_numbers(text: str) -> None:
    with pytest.raises(UsageError):
        read_settings(ProfileSettings, {"axis": [text]})
