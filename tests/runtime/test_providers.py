"""Where nodes may run, what is missing when they cannot, and engines that are never mixed up."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from snowsdeploy.errors import ProviderError, UsageError
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.runtime.engine_cache import cache_options, engine_key
from snowsdeploy.runtime.libraries import library_in
from snowsdeploy.runtime.providers import PROVIDERS
from snowsdeploy.runtime.session import OrtSession, provider_options, require_placement
from snowsdeploy.settings.read import read_settings
from snowsdeploy.settings.runtime import RuntimeSettings
from snowsdeploy_exporters import OnnxExporter
from tests.exporters.nets import prune
from tests.nets import TinyCNN, make_program

TENSORRT = PROVIDERS["tensorrt"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("providers")
    dense = make_program(TinyCNN())
    sparse, _ = prune(dense, Pattern(2, 4))
    programs = {"dense": dense, "sparse": sparse}
    return {r: OnnxExporter().export(p, folder / f"{r}.onnx", r, {}).path for r, p in programs.items()}  # type: ignore[arg-type]


def test_nodes_elsewhere_are_refused_unless_allowed() -> None:
    nodes = {TENSORRT.ep: ["TRTKernel"], "CPUExecutionProvider": ["Shape", "Gather", "Gather"]}
    with pytest.raises(ProviderError, match="does not run every node") as caught:
        require_placement(TENSORRT, nodes, [])
    assert caught.value.seen == "CPUExecutionProvider: 2 Gather, 1 Shape"
    assert str(caught.value.fix).endswith("--allow-fallback cpu")
    require_placement(TENSORRT, nodes, ["CPUExecutionProvider"])


def test_a_provider_without_a_node_is_refused_whatever_is_allowed() -> None:
    with pytest.raises(ProviderError, match="does not load") as caught:
        require_placement(TENSORRT, {"CPUExecutionProvider": ["Conv"]}, ["CPUExecutionProvider"])
    assert TENSORRT.ep in str(caught.value.allowed)


def test_a_plugin_falls_back_to_the_cpu_only(files: dict[str, Path]) -> None:
    runtime = RuntimeSettings(provider="tensorrt-rtx", allow_fallback=("cuda",))
    with pytest.raises(UsageError, match="CPU provider only"):
        OrtSession.open(files["dense"], runtime)


def test_a_plugin_whose_library_does_not_load_is_refused(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, Path], tmp_path: Path
) -> None:
    plugin = SimpleNamespace(get_library_path=lambda: str(tmp_path / "libnothing.so"))
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", plugin)
    with pytest.raises(ProviderError, match="tensorrt-rtx does not load") as caught:
        OrtSession.open(files["dense"], RuntimeSettings(provider="tensorrt-rtx"))
    assert "libnothing.so" in str(caught.value.seen)


@pytest.mark.parametrize(
    ("text", "name", "fix"),
    [
        ("libnvinfer.so.10: cannot open shared object file: No such file", "libnvinfer.so.10", "tensorrt-cu13"),
        ("x libcudnn_graph.so.9: cannot open shared object file", "libcudnn_graph.so.9", "nvidia-cudnn-cu13"),
        ("libcuda.so.1: cannot open shared object file: No such file", "libcuda.so.1", "driver"),
        ("libodd.so.3: cannot open shared object file: No such file", "libodd.so.3", "install it"),
    ],
)
def test_a_missing_library_says_what_brings_it(text: str, name: str, fix: str) -> None:
    found = library_in(text)
    assert found is not None
    assert found.name == name
    assert fix in found.fix


def test_other_linker_messages_name_no_library() -> None:
    assert library_in("undefined symbol: Provider_GetHost") is None


def test_dense_and_sparse_never_share_an_engine(files: dict[str, Path], tmp_path: Path) -> None:
    keys = {role: engine_key(path, TENSORRT, TENSORRT.options) for role, path in files.items()}
    assert keys["dense"] != keys["sparse"]
    options = {role: cache_options(TENSORRT, tmp_path, key) for role, key in keys.items()}
    for name in ("trt_engine_cache_path", "trt_engine_cache_prefix", "trt_timing_cache_path"):
        assert options["dense"][name] != options["sparse"][name]
    assert all(Path(o["trt_engine_cache_path"]).is_dir() for o in options.values())


def test_options_provider_and_weights_decide_the_engine(files: dict[str, Path]) -> None:
    path = files["sparse"]
    base = engine_key(path, TENSORRT, TENSORRT.options)
    assert engine_key(path, TENSORRT, TENSORRT.options) == base
    assert engine_key(path, TENSORRT, {**TENSORRT.options, **TENSORRT.sparsity_off}) != base
    assert engine_key(path, PROVIDERS["tensorrt-rtx"], TENSORRT.options) != base


def test_weights_in_a_file_beside_the_model_decide_the_engine(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = onnx.load(files["sparse"])
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = engine_key(path, TENSORRT, {})
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[5] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert engine_key(path, TENSORRT, {}) != before


def test_a_provider_that_compiles_nothing_keeps_nothing(tmp_path: Path) -> None:
    assert cache_options(PROVIDERS["cpu"], tmp_path / "engines", "k") == {}
    assert not (tmp_path / "engines").exists()


def test_bound_calls_run_at_fixed_addresses(files: dict[str, Path]) -> None:
    session = OrtSession.open(files["dense"])
    images = session.random_inputs(3)
    call = session.bind(images)
    call()
    call()
    assert np.isfinite(session.run(images)[0]).all()


def test_options_come_from_toml_and_the_command_line_wins(tmp_path: Path) -> None:
    file = tmp_path / "snowsdeploy.toml"
    file.write_text(
        'provider = "tensorrt"\nallow_fallback = ["cpu"]\n[provider_option]\ntrt_fp16_enable = false\nn = 2\n'
    )
    found = read_settings(RuntimeSettings, {}, file)
    assert found.provider_option == {"trt_fp16_enable": "0", "n": "2"}
    assert found.allow_fallback == ("cpu",)
    assert read_settings(RuntimeSettings, {"provider_option": {"n": "3"}}, file).provider_option == {"n": "3"}


def test_options_of_the_user_lie_over_ours_and_the_cache_over_both(files: dict[str, Path], tmp_path: Path) -> None:
    runtime = RuntimeSettings(provider="tensorrt", provider_option={"trt_sparsity_enable": "0", "device_id": "1"})
    found = provider_options(TENSORRT, files["sparse"], runtime)
    assert found == {**TENSORRT.options, "trt_sparsity_enable": "0", "device_id": "1"}
    assert found["trt_engine_cache_enable"] == "0"
    kept = provider_options(TENSORRT, files["sparse"], runtime.model_copy(update={"engine_cache": tmp_path}))
    assert kept["trt_engine_cache_enable"] == "1"
    assert Path(kept["trt_engine_cache_path"]).parent == tmp_path
