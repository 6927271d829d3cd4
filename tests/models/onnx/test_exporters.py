"""What torch's exporters write, and what other converters write for sizes that vary, is read and traced again."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import ModelProto, TensorProto
from torch import Tensor, nn
from torch.export import Dim

from tests.models.onnx.check import check, imported, model_of, node, run_onnx, same


class Convolutions(nn.Module):
    """A residual block, an image made larger, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish(), nn.MaxPool2d(3, 2, 1))
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=2), nn.GELU(), nn.Conv2d(8, 8, 1))
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.stem(x)
        features = features + self.block(features)
        large = F.interpolate(self.up(features), scale_factor=2.0, mode="bilinear", align_corners=False)
        padded = F.pad(large, (1, 0, 0, 1), mode="reflect")
        return self.head(padded.mean((2, 3))), large


class Attention(nn.Module):
    """A transformer's block with a class token and positions, on patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.place = nn.Parameter(torch.randn(1, 17, 16))
        self.norm, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.patch(x).flatten(2).transpose(1, 2)
        rows = torch.cat([self.token.expand(rows.shape[0], -1, -1), rows], 1) + self.place
        batch, count, width = rows.shape
        q, k, v = self.qkv(self.norm(rows)).reshape(batch, count, 3, 4, width // 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
        mixed = mixed.transpose(1, 2).reshape(batch, count, width)
        rows = rows + self.out(mixed)
        rows = rows + self.mlp(self.norm2(rows))
        return F.log_softmax(self.head(rows[:, 0]), -1)


class Sequences(nn.Module):
    """A recurrent layer over the columns of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.lstm = nn.LSTM(4, 6, bidirectional=True, num_layers=2)
        self.gru = nn.GRU(12, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        columns = F.avg_pool2d(self.conv(x), (16, 4)).squeeze(2).permute(2, 0, 1)
        return self.head(self.gru(self.lstm(columns)[0])[0])


NETS = {"convolutions": Convolutions, "attention": Attention, "sequences": Sequences}
WRITERS = {"script_13": 13, "script_17": 17, "dynamo_20": 20}


def written(module: nn.Module, example: Tensor, writer: str) -> ModelProto:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if writer.startswith("script"):
            axes = {"input": {0: "batch"}}
            torch.onnx.export(
                module, (example,), stream, dynamo=False, opset_version=WRITERS[writer], input_names=["input"],
                dynamic_axes=axes,
            )  # fmt: skip
        else:
            shapes = ({0: Dim("batch")},)
            program = torch.onnx.export(
                module, (example,), dynamo=True, opset_version=WRITERS[writer], dynamic_shapes=shapes, verbose=False
            )
            assert program is not None
            return program.model_proto
    return onnx.load_from_string(stream.getvalue())


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", NETS)
def test_torch_writes_and_it_is_traced_again_with_any_batch(name: str, writer: str) -> None:
    torch.manual_seed(0)
    module = NETS[name]().eval()
    model = written(module, torch.randn(3, 3, 16, 16), writer)
    result = imported(model)
    value = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = module(value)
        outputs = result.module(value)
        wanted = [each.numpy() for each in (expected if isinstance(expected, tuple) else (expected,))]
        same(outputs, wanted)
        same(outputs, run_onnx(model, {model.graph.input[0].name: value.numpy()}))
        traced = torch.export.export(result.module, (value,), dynamic_shapes=(({0: Dim("batch", min=1)},),))
        other = torch.randn(5, 3, 16, 16)
        same(traced.module()(other), [each.numpy() for each in result.module(other)])
    weights = {
        name: value for name, value in module.state_dict().items() if name.endswith("weight") and value.dim() > 1
    }
    held = dict(result.module.named_parameters())
    layers = [value for name, value in weights.items() if "lstm" not in name and "gru" not in name]
    for value in layers:
        assert any(value.shape == each.shape and torch.allclose(value, each, rtol=1, atol=1) for each in held.values())


def test_a_copy_of_the_module_has_its_own_parameters() -> None:
    module = imported(written(Convolutions().eval(), torch.randn(2, 3, 16, 16), "script_17")).module
    other = copy.deepcopy(module)
    for parameter in other.parameters():
        parameter.data.zero_()
    value = torch.randn(1, 3, 16, 16)
    assert module(value)[0].abs().sum() > 0
    assert other(value)[0].abs().sum() == 0


def traced(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, np.ndarray], opset: int, sizes: Sequence[tuple[int, ...]]
) -> None:
    """A model of one image, traced with batch, height and width open, is right at every size."""
    model = model_of(nodes, {"x": np.zeros(sizes[0], np.float32)}, constants, opset)
    module = imported(model).module
    axes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.export.export(module, (torch.randn(sizes[0]),), dynamic_shapes=((axes,),)).module()
    for size in sizes:
        value = np.random.default_rng(0).standard_normal(size).astype(np.float32)
        same(program(torch.from_numpy(value)), run_onnx(model, {"x": value}))


SIZES = ((2, 4, 6, 8), (3, 4, 10, 5), (2, 4, 7, 9))


def test_sizes_computed_by_paddle_and_torchscript_for_resize() -> None:
    """Shape, Slice, Concat, Resize, as paddle2onnx writes an image made as large as another."""
    nodes = [
        node("MaxPool", "x", "small", kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", "x", "all"),
        node("Slice", "all two four zero", "wanted"),
        node("Shape", "small", "of_small"),
        node("Slice", "of_small zero two zero", "kept"),
        node("Concat", "kept wanted", "sizes", axis=0),
        node("Resize", "small e e sizes", mode="linear", coordinate_transformation_mode="half_pixel"),
    ]
    numbers = {"zero": np.array([0]), "two": np.array([2]), "four": np.array([4]), "e": np.zeros(0, np.float32)}
    traced(nodes, numbers, 11, SIZES)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    ("coordinates", "factors"),
    [("half_pixel", (2, 2)), ("half_pixel", (0.5, 1.5)), ("asymmetric", (2, 1.5)), ("align_corners", (0.5, 2))],
)
def test_scales_of_images_of_any_size(mode: str, coordinates: str, factors: tuple[float, float]) -> None:
    made = node("Resize", "x - s", mode=mode, coordinate_transformation_mode=coordinates)
    traced([made], {"s": np.array([1, 1, *factors], np.float32)}, 13, SIZES)


def test_sizes_in_floating_point() -> None:
    """As older TorchScript writes scale_factor: Cast, Mul, Floor, Cast, Concat."""
    nodes = [
        node("Shape", "x", "all"),
        node("Slice", "all two four zero", "sizes"),
        node("Cast", "sizes", "real", to=TensorProto.FLOAT),
        node("Mul", "real factors", "scaled"),
        node("Floor", "scaled", "floor"),
        node("Cast", "floor", "whole", to=TensorProto.INT64),
        node("Slice", "all zero two zero", "kept"),
        node("Concat", "kept whole", "wanted", axis=0),
        node(
            "Resize", "x e e wanted", mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"
        ),
    ]
    numbers = {"zero": np.array([0]), "two": np.array([2]), "four": np.array([4]), "e": np.zeros(0, np.float32)}
    traced(nodes, numbers | {"factors": np.array([2.0, 3.0], np.float32)}, 11, SIZES)


PADDED = {
    "Conv": ("x w", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "MaxPool": ("x", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "AveragePool": ("x", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    "Pad": ("x p", {"mode": "reflect"}),
    "Slice": ("x start end axis step", {}),
    "Tile": ("x repeats", {}),
    "InstanceNormalization": ("x b b", {}),
    "DepthToSpace": ("x", {"blocksize": 2}),
    "CumSum": ("x axis0", {}),
}


@pytest.mark.parametrize("operator", PADDED)
def test_windows_and_pads_of_images_of_any_size(operator: str) -> None:
    names, attributes = PADDED[operator]
    constants = {
        "w": np.random.default_rng(1).standard_normal((5, 4, 3, 3)).astype(np.float32),
        "p": np.array([0, 0, 1, 2, 0, 0, 2, 1]),
        "start": np.array([-1]),
        "end": np.array([-(1 << 62)]),
        "axis": np.array([3]),
        "step": np.array([-1]),
        "repeats": np.array([1, 1, 2, 1]),
        "b": np.ones(4, np.float32),
        "axis0": np.array(2),
    }
    used = {name: constants[name] for name in names.split() if name != "x"}
    traced([node(operator, names, **attributes)], used, 13, SIZES)


def test_flattening_of_sizes_that_vary() -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s at", "n"),
        node("Unsqueeze", "n zero", "first"),
        node("Concat", "first rest", "shape", axis=0),
        node("Reshape", "x shape", "rows"),
        node("Transpose", "rows", "turned", perm=[0, 2, 1]),
        node("MatMul", "turned w"),
    ]
    constants = {"at": np.array(0), "zero": np.array([0]), "rest": np.array([4, -1])}
    traced(nodes, constants | {"w": np.ones((4, 3), np.float32)}, 13, SIZES)


def test_a_recurrent_layer_with_any_batch() -> None:
    rng = np.random.default_rng(0)
    constants = {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in (("w", (2, 12, 4)), ("r", (2, 12, 3)))
    }
    made = node("LSTM", "x w r", "y h", hidden_size=3, direction="bidirectional")
    values = {"x": rng.standard_normal((3, 2, 4)).astype(np.float32)}
    check([made], values, constants, 14, outputs=("y", "h"), export=True, dynamic={"x": [1]})


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_with_the_batch_first(kind: str) -> None:
    """ONNX Runtime has no such kernel; the layer with the time first is the oracle."""
    rng = np.random.default_rng(0)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    constants = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in (("w", (2, 3 * gates, 4)), ("r", (2, 3 * gates, 3)), ("h", (2, 2, 3)))
    }
    attributes = {"hidden_size": 3, "direction": "bidirectional"} | (
        {"linear_before_reset": 1} if kind == "GRU" else {}
    )
    value = rng.standard_normal((5, 2, 4)).astype(np.float32)
    rows, last = imported(
        model_of([node(kind, "x w r - - h", "y y_h", **attributes)], {"x": value}, constants, 14, ("y", "y_h"))
    ).module(torch.from_numpy(value))
    first = constants | {"h": constants["h"].transpose(1, 0, 2).copy()}
    turned = np.ascontiguousarray(value.transpose(1, 0, 2))
    model = model_of(
        [node(kind, "x w r - - h", "y y_h", layout=1, **attributes)], {"x": turned}, first, 14, ("y", "y_h")
    )
    results = imported(model).module(torch.from_numpy(turned))
    same(results, [rows.permute(2, 0, 1, 3).numpy(), last.transpose(0, 1).numpy()])


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_no_window_begins_in_the_padding_at_the_end(operator: str) -> None:
    made = node(operator, "x", kernel_shape=[3, 1], strides=[2, 1], pads=[0, 0, 2, 0], ceil_mode=1)
    check([made], {"x": np.random.default_rng(0).standard_normal((1, 2, 6, 4)).astype(np.float32)}, opset=13)


def test_a_slice_backwards_from_before_the_first_element() -> None:
    constants = {"s": np.array([-5]), "e": np.array([-9]), "a": np.array([0]), "t": np.array([-1])}
    check([node("Slice", "x s e a t")], {"x": np.arange(4, dtype=np.float32)}, constants, 13)
