"""NVIDIA's ahead-of-time compiler on files that it takes and on one that it refuses."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from snowsdeploy.errors import ProviderError
from snowsdeploy.layout.onnx_layout import LAYER_MAP_KEY
from snowsdeploy.measure import compilation
from snowsdeploy.measure.compilation import CAPABILITIES, check_compilation, require_compiler
from snowsdeploy.values import Precision
from snowsdeploy_exporters import OnnxExporter
from tests.nets import TinyAttention, TinyCNN, make_program


@pytest.fixture
def compiler() -> None:
    pytest.importorskip("tensorrt_rtx", reason='needs TensorRT-RTX: pip install "snowsdeploy[compile]"')


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("net", ["cnn", "attention"])
def test_exported_files_compile(net: str, precision: Precision, tmp_path: Path) -> None:
    program = make_program(TinyCNN() if net == "cnn" else TinyAttention(fused=False))
    exporter = OnnxExporter()
    artifact = exporter.export(program, tmp_path / "model.onnx", "sparse", {})
    if precision != "fp32":
        images = [torch.randn(4, *program.preprocessing.input_size)]
        artifact = exporter.convert(artifact, tmp_path / f"model.{precision}.onnx", precision, images)
    found = check_compilation(artifact.path, ("8.6", "8.9", "12.0"))
    assert found.accepted, found.messages
    assert found.engine_bytes > 0
    assert "TensorRT-RTX" in found.compiler


@pytest.mark.usefixtures("compiler")
def test_a_refusal_names_operator_and_layer(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Det", ["x"], ["y"], name="node_det")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {LAYER_MAP_KEY: '{"stem.norm": ["node_det"]}'})
    path = tmp_path / "refused.onnx"
    onnx.save(model, path)
    found = check_compilation(path, ("8.6",))
    assert not found.accepted
    (message,) = found.messages
    assert "Det" in message
    assert "layer stem.norm" in message


@pytest.mark.usefixtures("compiler")
def test_every_capability_is_one_that_the_compiler_knows(tmp_path: Path) -> None:
    exporter, program = OnnxExporter(), make_program(TinyCNN())
    source = exporter.export(program, tmp_path / "m.onnx", "dense", {})
    images = [torch.randn(4, *program.preprocessing.input_size)]
    half = exporter.convert(source, tmp_path / "h.onnx", "fp16", images)
    assert check_compilation(half.path, tuple(CAPABILITIES)).accepted
    full = check_compilation(source.path, tuple(CAPABILITIES))
    assert not full.accepted  # Turing has no FP32 matrix product
    (message,) = full.messages
    assert message.startswith("compute capability 7.5: ")
    assert "(layer " in message


def test_without_the_compiler_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'tensorrt_rtx'")

    monkeypatch.setattr(compilation, "_library", missing)
    with pytest.raises(ProviderError, match=r"--compile-for needs TensorRT-RTX") as caught:
        require_compiler()
    assert "[compile]'" in str(caught.value)
