"""Files with preprocessing and output ends: what they compute, what they keep, and that a difference is an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from snowsdeploy.data.arrays import array_reader
from snowsdeploy.errors import ExportError, LayoutError
from snowsdeploy.layout.onnx_layout import check_onnx
from snowsdeploy.models.program import Program
from snowsdeploy.models.trace import trace
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.settings.export import ExportSettings
from snowsdeploy.values import OnnxArtifact, Precision, Preprocessing, SourceInfo
from snowsdeploy_exporters import OnnxExporter
from snowsdeploy_exporters.serving import add_ends, normalise
from snowsdeploy_exporters.serving_check import require_equal, to_pixels
from tests.exporters.contents import images_of, make_contents
from tests.nets import TinyCNN, make_program

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
PREPROCESSING = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)
ALL = ExportSettings(uint8_input=True, softmax=True, top_k=3)


def outputs(path: Path, feed: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": feed}), strict=True))


def served(program: Program, folder: Path, settings: ExportSettings, precision: Precision = "fp32") -> OnnxArtifact:
    return make_contents(program, folder, (precision,), settings).files.serving[0]


def test_normalising_is_what_reading_pixels_does() -> None:
    uneven = Preprocessing(input_size=(3, 8, 8), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    expected = array_reader(PIXELS, uneven)(range(len(PIXELS))).numpy()
    found = normalise(PIXELS, uneven)
    assert np.array_equal(found, expected)
    assert np.array_equal(to_pixels(found, uneven), PIXELS)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_pixels_in_probabilities_and_best_classes_out(tmp_path: Path, precision: Precision) -> None:
    torch.manual_seed(0)
    program = make_program(TinyCNN())
    contents = make_contents(program, tmp_path, (precision,), ALL)
    (serving,), original = contents.files.serving, contents.files.judged[0].sparse
    assert serving.path.name == ("serving.onnx" if precision == "fp32" else f"serving.{precision}.onnx")
    assert serving.output_names == ("probabilities", "top_values", "top_classes")
    scores = outputs(original.path, normalise(PIXELS, PREPROCESSING))["output"]
    found = outputs(serving.path, PIXELS)
    expected = torch.from_numpy(scores).softmax(-1)
    np.testing.assert_allclose(found["probabilities"], expected.numpy(), rtol=1e-2 if precision != "fp32" else 1e-4)
    best = torch.from_numpy(found["probabilities"]).topk(3)
    assert np.array_equal(found["top_values"], best.values.numpy())
    assert np.array_equal(found["top_classes"], best.indices.numpy())


def test_the_file_keeps_pattern_opset_metadata_and_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    contents = make_contents(make_program(TinyCNN()), tmp_path, settings=ALL)
    (serving,), original = contents.files.serving, contents.files.fp32.sparse
    names = [d.name for d in contents.prune.pruned]
    assert {row.name for row in check_onnx(serving.path, Pattern(2, 4), names).layers} >= set(names)
    before, after = onnx.load(original.path), onnx.load(serving.path)
    onnx.checker.check_model(after, full_check=True)
    assert list(after.opset_import) == list(before.opset_import)
    assert list(after.metadata_props) == list(before.metadata_props)
    kept = {t.name: t for t in after.graph.initializer}
    assert all(kept[t.name] == t for t in before.graph.initializer)
    dims = [d.dim_param or d.dim_value for d in after.graph.input[0].type.tensor_type.shape.dim]
    assert (after.graph.input[0].name, dims) == ("input", ["batch", 8, 8, 3])
    shapes = [[d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim] for o in after.graph.output]
    assert shapes == [["batch", 5], ["batch", 3], ["batch", 3]]
    assert serving == original.model_copy(
        update={
            "path": serving.path,
            "sha256": serving.sha256,
            "size_bytes": serving.size_bytes,
            "output_names": serving.output_names,
        }
    )
    assert outputs(original.path, normalise(PIXELS, PREPROCESSING)).keys() == {"output"}


@pytest.mark.parametrize(
    ("settings", "kind", "names"),
    [
        ({"uint8_input": True}, np.uint8, ("output",)),
        ({"softmax": True}, np.float32, ("probabilities",)),
        ({"top_k": 1}, np.float32, ("output", "top_values", "top_classes")),
    ],
)
def test_each_end_alone(tmp_path: Path, settings: dict[str, object], kind: type, names: tuple[str, ...]) -> None:
    serving = served(make_program(TinyCNN()), tmp_path, ExportSettings.model_validate(settings))
    feed = PIXELS if kind is np.uint8 else normalise(PIXELS, PREPROCESSING)
    assert tuple(outputs(serving.path, feed)) == names == serving.output_names


def test_grey_images_keep_their_axis(tmp_path: Path) -> None:
    body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 5, 1))
    preprocessing = Preprocessing(input_size=(1, 8, 8), mean=(0.3,), std=(0.35,))
    net = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    program = trace(net, preprocessing, SourceInfo(source="grey", format="factory"))
    serving = served(program, tmp_path, ExportSettings(uint8_input=True))
    grey = PIXELS[..., :1]
    original = outputs(tmp_path / "model.onnx", normalise(grey, preprocessing))["output"]
    np.testing.assert_allclose(outputs(serving.path, grey)["output"], original, rtol=1e-5, atol=1e-6)


Ended = tuple[onnx.ModelProto, onnx.ModelProto, Sequence[np.ndarray]]


@pytest.fixture
def ended(tmp_path: Path) -> Ended:
    """(original, serving, images) of one net."""
    torch.manual_seed(0)
    program = make_program(TinyCNN())
    original = onnx.load(make_contents(program, tmp_path).files.fp32.sparse.path)
    serving = add_ends(original, program.preprocessing, uint8_input=True, softmax=True, top_k=2)
    return original, serving, [batch.numpy() for batch in images_of(program)]


def constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def other_mean(model: onnx.ModelProto) -> None:
    constant(model, "serving_mean", np.asarray([0.5, 0.5, 0.51], dtype=np.float32))


def other_order(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.op_type == "Transpose" and n.name.startswith("serving"))
    node.attribute[0].CopyFrom(helper.make_attribute("perm", [0, 3, 2, 1]))


def smallest(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.op_type == "TopK")
    node.attribute.append(helper.make_attribute("largest", 0))


def other_weight(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    constant(model, tensor.name, numpy_helper.to_array(tensor) * np.float32(1.1))


def nan_weight(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    constant(model, tensor.name, numpy_helper.to_array(tensor) * np.float32("nan"))


def test_what_is_the_same_passes(ended: Ended) -> None:
    original, serving, images = ended
    require_equal(original, serving, PREPROCESSING, images)


@pytest.mark.parametrize("spoil", [other_mean, other_order, smallest, other_weight, nan_weight])
def test_a_file_that_computes_something_else_is_refused(ended: Ended, spoil) -> None:
    original, serving, images = ended
    spoil(serving)
    with pytest.raises(ExportError, match="does not compute"):
        require_equal(original, serving, PREPROCESSING, images)


def test_nothing_is_written_when_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = add_ends

    def spoiled(*arguments: object, **options: object) -> onnx.ModelProto:
        model = real(*arguments, **options)
        other_mean(model)
        return model

    monkeypatch.setattr("snowsdeploy_exporters.onnx_exporter.add_ends", spoiled)
    with pytest.raises(ExportError, match="does not compute"):
        served(make_program(TinyCNN()), tmp_path, ALL)
    assert not (tmp_path / "serving.onnx").exists()


def test_a_broken_layout_is_found_in_the_serving_file(tmp_path: Path) -> None:
    contents = make_contents(make_program(TinyCNN()), tmp_path)
    dense = contents.files.fp32.dense
    images = images_of(make_program(TinyCNN()))
    serving = OnnxExporter().serve(dense, tmp_path / "serving.onnx", ALL, PREPROCESSING, images)
    with pytest.raises(LayoutError):
        check_onnx(serving.path, Pattern(2, 4), [d.name for d in contents.prune.pruned])
