"""An ONNX file in, the same file with other weights out: from end to end, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from snowsdeploy.errors import GraphError, SnowsDeployError, SourceError, UsageError
from snowsdeploy.layout.onnx_layout import inspect_onnx
from snowsdeploy.models.onnx.rules import RULES
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.progress import NullObserver
from snowsdeploy.settings.jobs import MainJob, PlanJob
from snowsdeploy.settings.read import read_settings
from snowsdeploy.settings.runtime import RuntimeSettings
from snowsdeploy.stages.debug import run_debug_parity
from snowsdeploy.stages.job import run_main_job, run_plan
from snowsdeploy.stages.later import run_export, run_validate
from snowsdeploy.values import Report
from snowsdeploy_exporters import OnnxExporter

RNG = np.random.default_rng(0)
LAYERS = ["body/w 1", "body.w2", "after"]


def weight(*shape: int) -> np.ndarray[Any, Any]:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def convolutions(batch: int | str = "n", side: int | str | None = None, *, opset: int = 11) -> ModelProto:
    """As another framework may write it: odd names, nodes without names, a shared bias, metadata, an old opset."""
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["pixels:0", "stem_w", "shared"], ["a"], **conv),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "body/w 1", "shared"], ["c"], **conv),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "body.w2"], ["e"], **conv),
        helper.make_node("Add", ["e", "b"], ["f"]),
        helper.make_node("GlobalAveragePool", ["f"], ["g"]),
        helper.make_node("Flatten", ["g"], ["h"]),
        helper.make_node("MatMul", ["h", "onnx::MatMul_7"], ["i"], "after"),
        helper.make_node("Relu", ["i"], ["j"]),
        helper.make_node("Gemm", ["j", "head.weight"], ["scores/0"], "head", transB=1),
    ]
    values = {
        "stem_w": weight(16, 3, 3, 3),
        "shared": weight(16),
        "body/w 1": weight(16, 16, 3, 3),
        "body.w2": weight(16, 16, 3, 3),
        "onnx::MatMul_7": weight(16, 32),
        "head.weight": weight(5, 32),
    }
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    tensors[2] = helper.make_tensor("body/w 1", TensorProto.FLOAT, [16, 16, 3, 3], values["body/w 1"].reshape(-1))
    graph = helper.make_graph(
        nodes,
        "a graph",
        [helper.make_tensor_value_info("pixels:0", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("scores/0", TensorProto.FLOAT, [batch, 5])],
        tensors,
        doc_string="trained elsewhere",
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    model.producer_name, model.domain = "another framework", "com.example"
    helper.set_model_props(model, {"classes": "a,b,c,d,e", "stride": "1"})
    return model


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((24, 3, 10, 10)).astype(np.float32)
    np.savez(tmp_path / "images.npz", x=x, y=rng.integers(0, 5, 24))
    return tmp_path / "images.npz"


def job(model: ModelProto, images: Path, **more: Any) -> MainJob:
    path = images.parent / "user.onnx"
    onnx.save(model, path)
    fast = {"solver": "none", "selector": "magnitude", "latency_runs": 5, "latency_batch": (1,)}
    values = {"model": str(path), "data": f"{images}[:16]", "eval_data": str(images), "out": images.parent / "run"}
    return read_settings(MainJob, values | fast | more)


def initializers(model: ModelProto) -> Mapping[str, bytes]:
    return {t.name: t.SerializeToString() for t in model.graph.initializer}


def without_values(model: ModelProto) -> ModelProto:
    bare = ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        kept = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        tensor.CopyFrom(kept)
    return bare


@pytest.mark.parametrize("permute", [False, True])
def test_result_is_users_file_with_new_values(images: Path, permute: bool) -> None:
    settings = job(convolutions(), images, permute=permute, solver="k0")
    report = run_main_job(settings, OnnxExporter())
    user, run = onnx.load(images.parent / "user.onnx"), settings.out
    dense, sparse = onnx.load(run / "dense.onnx"), onnx.load(run / "model.onnx")
    assert without_values(sparse) == without_values(user) == without_values(dense)
    before = initializers(user)
    changed = {name for name, value in initializers(sparse).items() if value != before[name]}
    if permute:
        assert changed <= set(before)
        assert {"body/w 1", "body.w2", "onnx::MatMul_7"} <= changed
    else:
        assert changed == {"body/w 1", "body.w2", "onnx::MatMul_7"}
        assert initializers(dense) == before
    held = next(t for t in sparse.graph.initializer if t.name == "body/w 1")
    assert held.float_data
    assert not held.raw_data
    evidence = inspect_onnx(run / "model.onnx", Pattern.parse("2:4"))
    by_name = {layer.name: layer.layout_valid for layer in evidence.layers}
    assert {name: by_name[name] for name in LAYERS} == dict.fromkeys(LAYERS, True)
    assert [d.name for d in report.prune.decisions if d.prunable] == LAYERS
    assert {d.name: d.reason for d in report.prune.decisions if not d.prunable} == {
        "stem_w": "stem (3 input channels)",
        "head": "classifier",
    }
    assert report.source.format == "onnx"
    assert "another framework" in report.source.remarks[0]
    assert report.signature.inputs[0].name == "pixels:0"
    assert report.signature.outputs == ("scores/0",)
    assert [a.name for a in report.signature.dynamic] == ["height", "width"]


def test_shared_bias_stays_right(images: Path) -> None:
    """One vector of two layers, whose channels are ordered together or not at all."""
    report = run_main_job(job(convolutions(), images, permute=True), OnnxExporter())
    assert report.prune.permutation is not None
    assert report.prune.permutation.error < 1e-5
    assert max(row.relative_l2 for row in report.variants[0].parity.rows) < 1e-5


def test_later_stages_need_run_alone(images: Path) -> None:
    settings = job(convolutions(opset=13), images)
    run_main_job(settings, OnnxExporter())
    (images.parent / "user.onnx").unlink()
    files = run_export(settings.out, {"precision": ("fp32", "fp16", "int8")}, lambda _: OnnxExporter())
    assert [pair.precision for pair in files.pairs] == ["fp32", "fp16", "int8"]
    report = run_validate(settings.out, {"latency_runs": 5})
    assert [v.precision for v in report.variants] == ["fp32", "fp16", "int8"]
    for variant in report.variants:
        assert set(LAYERS) <= {layer.name for layer in variant.sparsity.layers if layer.layout_valid}
    found = run_debug_parity(settings.out, "fp32", RuntimeSettings(), images=4, observer=NullObserver())
    assert all(row.reference == "torch" for row in found.rows)
    assert {"a", "c", "e", "i", "scores/0"} <= {row.value for row in found.rows}


def test_fixed_number_of_items(images: Path) -> None:
    report = run_main_job(job(convolutions(batch=2, side=10), images), OnnxExporter())
    assert report.signature.batch == 2
    assert report.signature.dynamic == ()
    assert {row.batch for row in report.variants[0].parity.rows} == {2}


def test_plan_names_layers_as_the_file_does(images: Path) -> None:
    onnx.save(convolutions(), images.parent / "user.onnx")
    values = {"model": str(images.parent / "user.onnx"), "data": f"{images}[:8]"}
    plan = run_plan(read_settings(PlanJob, values))
    assert [name for unit in plan.units for name in unit.layers] == LAYERS


def test_two_inputs_with_open_axes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["words", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["c"]),
        helper.make_node("Unsqueeze", ["mask"], ["m"], axes=[2]),
        helper.make_node("Mul", ["c", "m"], ["d"]),
        helper.make_node("MatMul", ["d", "w3"], ["out"]),
    ]
    kinds = {"words": ["n", "time", 8], "mask": ["n", "time"]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in kinds.items()],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", "time", 4])],
        [numpy_helper.from_array(weight(*s), n) for n, s in (("w1", (8, 16)), ("w2", (16, 16)), ("w3", (16, 4)))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "images.npz",
        words=rng.standard_normal((8, 6, 8)).astype(np.float32),
        mask=np.ones((8, 6), np.float32),
    )
    report = run_main_job(job(model, tmp_path / "images.npz", eval_data=None), OnnxExporter())
    axes = [(a.input, a.axis, a.name) for a in report.signature.dynamic]
    assert axes == [("words", 1, "time"), ("mask", 1, "time")]
    assert [d.name for d in report.prune.decisions if d.prunable] == ["w1", "w2"]


def test_wrong_import_is_refused(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "Relu", lambda call, x: torch.nn.functional.leaky_relu(x, 0.2))
    with pytest.raises(GraphError, match="computes something else than ONNX Runtime"):
        run_main_job(job(convolutions(), images), OnnxExporter())
    assert not (images.parent / "run").exists() or not list((images.parent / "run").glob("*.onnx"))


def halved(model: ModelProto) -> ModelProto:
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


REFUSED: dict[str, tuple[Callable[[], ModelProto], dict[str, Any], type[SnowsDeployError], str]] = {
    "outputs": (convolutions, {"outputs": ("scores/0",)}, UsageError, "keeps its inputs, outputs and axes"),
    "names": (convolutions, {"output_names": ("y",)}, UsageError, "keeps its inputs, outputs and axes"),
    "dynamic": (convolutions, {"dynamic": ("height",)}, UsageError, "keeps its inputs, outputs and axes"),
    "arch": (convolutions, {"arch": "resnet18"}, UsageError, "names its own architecture"),
    "opset": (convolutions, {"opset": 18}, UsageError, "keeps its operator set"),
    "batch": (lambda: convolutions(batch=2), {"static_batch": 4}, UsageError, "fixes another number of items"),
    "size": (lambda: convolutions(side=12), {}, UsageError, "has another size"),
    "input": (convolutions, {"input": {"image": "3,10,10"}}, UsageError, "names no input of the ONNX file"),
    "half": (lambda: halved(convolutions()), {}, SourceError, "is not in FP32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_at_the_start(case: str, images: Path) -> None:
    make, more, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words):
        run_main_job(job(make(), images, **more), OnnxExporter(more.get("opset", 20)))
    assert not list(images.parent.glob("run/model*.onnx"))


def test_open_size_that_nothing_says(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    with pytest.raises(UsageError, match="leaves sizes of an input open"):
        run_main_job(job(convolutions(), images, data=str(folder), eval_data=None), OnnxExporter())


def test_pixels_need_mean_and_deviation(images: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 10, 10, 3)).astype(np.uint8)
    np.savez(tmp_path / "pixels.npz", x=pixels, y=np.zeros(8, np.int64))
    with pytest.raises(SnowsDeployError, match="nothing says how the images of --eval-data become"):
        run_main_job(job(convolutions(), images, eval_data=str(tmp_path / "pixels.npz")), OnnxExporter())
    report: Report = run_main_job(
        job(convolutions(), images, eval_data=str(tmp_path / "pixels.npz"), mean=(0.5,) * 3, std=(0.5,) * 3),
        OnnxExporter(),
    )
    assert report.preprocessing is not None
    assert report.preprocessing.mean == (0.5, 0.5, 0.5)
