"""FP16 and INT8 files: near the FP32 one, the pattern proven in what is stored, overflow kept in FP32."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnxruntime.quantization import quantize_static
from torch import Tensor, nn

from snowsdeploy.errors import UsageError
from snowsdeploy.layout.onnx_layout import check_onnx
from snowsdeploy.models.adopt import Wanted
from snowsdeploy.models.program import Program
from snowsdeploy.models.signature import random_batch
from snowsdeploy.models.trace import trace
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.settings.runtime import RuntimeSettings
from snowsdeploy.values import InputInfo, OnnxArtifact, Precision, SourceInfo
from snowsdeploy_exporters import OnnxExporter
from snowsdeploy_exporters.precision import int8, quantizer
from snowsdeploy_exporters.precision.values import largest_values
from tests.exporters.nets import Folded, Twice, prune
from tests.nets import TinyAttention, TinyCNN, make_program

P24 = Pattern(2, 4)


def images(program: Program, count: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, *program.preprocessing.input_size, generator=generator) for _ in range(2)]


def converted(program: Program, folder: Path, precision: Precision) -> tuple[OnnxArtifact, OnnxArtifact]:
    exporter = OnnxExporter()
    source = exporter.export(program, folder / "model.onnx", "sparse", {"a": "b"})
    return source, exporter.convert(source, folder / f"model.{precision}.onnx", precision, images(program))


def outputs(artifact: OnnxArtifact, batch: torch.Tensor) -> np.ndarray:
    """As the file says: integer kernels of CPUs without VNNI saturate, and err by more than the conversion."""
    return np.asarray(OrtSession.open(artifact.path, RuntimeSettings(), rewrite=False).run(batch.numpy())[0])


@pytest.mark.parametrize("net", [Folded, Twice, partial(TinyAttention, fused=False)])
@pytest.mark.parametrize(("precision", "error"), [("fp16", 5e-3), ("int8", 0.1)])
def test_a_converted_file_is_near_and_keeps_pattern_names_and_metadata(
    net: Callable[[], nn.Module], precision: Precision, error: float, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    program, names = prune(make_program(net()), P24)
    source, artifact = converted(program, tmp_path, precision)
    evidence = check_onnx(artifact.path, P24, names)
    assert {row.name for row in evidence.layers if row.layout_valid} >= set(names)
    batch = images(program)[0]
    expected = outputs(source, batch)
    assert np.linalg.norm(outputs(artifact, batch) - expected) < error * np.linalg.norm(expected)
    assert (artifact.precision, artifact.metadata) == (precision, source.metadata)
    model = onnx.load(artifact.path)
    onnx.checker.check_model(model, full_check=True)
    assert {p.key: p.value for p in model.metadata_props}["a"] == "b"
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_int8_stores_integers_and_its_zeros_are_zero(tmp_path: Path) -> None:
    program, _ = prune(make_program(Folded()), P24)
    _, artifact = converted(program, tmp_path, "int8")
    graph = onnx.load(artifact.path).graph
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    weights = [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored]
    assert weights
    for node in weights:
        assert stored[node.input[0]].dtype == np.int8
        assert not stored[node.input[2]].any()
        assert stored[node.input[1]].ndim == 1  # a scale for each output channel


class Loud(nn.Module):
    """One product reaches far beyond FP16's range, and is brought back."""

    def __init__(self) -> None:
        super().__init__()
        self.loud, self.last = nn.Conv2d(3, 8, 1), nn.Linear(8, 4)
        nn.init.constant_(self.loud.weight, 3e4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last((self.loud(x) * 1e-5).mean((2, 3)))


def test_nodes_that_would_overflow_stay_in_fp32(tmp_path: Path) -> None:
    program = make_program(Loud())
    source, artifact = converted(program, tmp_path, "fp16")
    assert artifact.kept
    assert all("values up to" in why for why in artifact.kept.values())
    batch = images(program)[0]
    expected = outputs(source, batch)
    assert np.isfinite(outputs(artifact, batch)).all()
    assert np.linalg.norm(outputs(artifact, batch) - expected) < 1e-2 * np.linalg.norm(expected)


def test_layers_that_err_most_stay_in_fp32_where_int8_is_too_coarse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, names = prune(make_program(Folded()), P24)
    source, coarse = converted(program, tmp_path, "int8")
    batch = images(program)[0]
    expected = outputs(source, batch)
    error = float(np.linalg.norm(outputs(coarse, batch) - expected) / np.linalg.norm(expected))
    monkeypatch.setattr(int8, "LARGEST_ERROR", 0.7 * error)
    _, finer = converted(program, tmp_path, "int8")
    assert finer.kept
    assert np.linalg.norm(outputs(finer, batch) - expected) < error * np.linalg.norm(expected)
    check_onnx(finer.path, P24, names)


def test_ranges_measured_once_give_the_file_that_one_call_gives(tmp_path: Path) -> None:
    program, _ = prune(make_program(Folded()), P24)
    source, artifact = converted(program, tmp_path, "int8")
    assert not artifact.kept
    target = tmp_path / "whole.onnx"
    quantize_static(
        source.path,
        target,
        quantizer._Reader("input", [batch.numpy() for batch in images(program)]),
        op_types_to_quantize=list(quantizer.PRODUCTS),
        per_channel=True,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
    one_call, ours = onnx.load(target), onnx.load(artifact.path)
    del one_call.metadata_props[:], ours.metadata_props[:]
    assert ours.SerializeToString(deterministic=True) == one_call.SerializeToString(deterministic=True)


def test_ranges_are_measured_once_for_all_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, _ = prune(make_program(Folded()), P24)
    monkeypatch.setattr(int8, "LARGEST_ERROR", 0.0)  # so that every layer is tried, and left out
    measured = []
    real = quantizer.create_calibrator

    def counted(*arguments: object, **options: object) -> object:
        measured.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(quantizer, "create_calibrator", counted)
    source, artifact = converted(program, tmp_path, "int8")
    assert len(artifact.kept) > 2
    assert len(measured) == 1
    assert np.array_equal(outputs(artifact, images(program)[0]), outputs(source, images(program)[0]))


def test_largest_values_are_those_that_flow(tmp_path: Path) -> None:
    program = make_program(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten()))
    artifact = OnnxExporter().export(program, tmp_path / "m.onnx", "dense", {})
    batches = [batch.numpy() for batch in images(program)]
    found = largest_values(onnx.load(artifact.path), batches)
    with torch.no_grad():
        expected = max(float(program.run(batch)[0].abs().max()) for batch in images(program))
    assert found["output"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_layers_that_the_user_names_stay_in_fp32(precision: Precision, tmp_path: Path) -> None:
    program = make_program(TinyCNN())
    exporter = OnnxExporter(keep_fp32=("dilat*",))
    source = exporter.export(program, tmp_path / "model.onnx", "sparse", {})
    artifact = exporter.convert(source, tmp_path / f"model.{precision}.onnx", precision, images(program))
    (node,) = artifact.kept
    assert artifact.kept[node] == "asked for by --keep-fp32"
    stored = {t.name: t.data_type for t in onnx.load(artifact.path).graph.initializer}
    assert stored["dilated.weight"] == onnx.TensorProto.FLOAT
    converted_to = {"fp16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[precision]
    assert converted_to in {kind for name, kind in stored.items() if name.startswith("strided.weight")}


def test_a_name_of_no_layer_is_refused(tmp_path: Path) -> None:
    program = make_program(TinyCNN())
    source = OnnxExporter().export(program, tmp_path / "model.onnx", "sparse", {})
    exporter = OnnxExporter(keep_fp32=("no such layer",))
    for name, attempt in (
        ("model.fp16.onnx", lambda path: exporter.convert(source, path, "fp16", images(program))),
        ("again.onnx", lambda path: exporter.export(program, path, "sparse", {})),
    ):
        with pytest.raises(UsageError, match="--keep-fp32") as caught:
            attempt(tmp_path / name)
        assert "layers such as depthwise, dilated, head" in str(caught.value.allowed)
        assert not (tmp_path / name).exists()


class TwoInputs(nn.Module):
    """Scores, and what is chosen by them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.vector, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.Linear(16, 6)

    def forward(self, image: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([self.image(image).relu().mean((2, 3)), self.vector(vector)], 1)
        scores = self.head(x)
        return scores, scores.argmax(1)


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_several_inputs_and_a_fixed_batch_are_converted(
    precision: Precision, batch: int | None, tmp_path: Path
) -> None:
    inputs = (InputInfo(name="image", shape=(3, 8, 8)), InputInfo(name="vector", shape=(8,)))
    program = trace(TwoInputs(), None, SourceInfo(source="test", format="factory"), Wanted(inputs, batch=batch))
    data = [random_batch(inputs, batch or 4, seed) for seed in range(6)]
    source = OnnxExporter().export(program, tmp_path / "model.onnx", "sparse", {})
    made = OnnxExporter().convert(source, tmp_path / "other.onnx", precision, data)
    (scores, _), (expected, _) = (OrtSession.open(f.path).run(data[0].numpy()) for f in (made, source))
    assert 0 < np.linalg.norm(scores - expected) < 0.1 * np.linalg.norm(expected)
