"""Convolutions, poolings and normalisations."""

from __future__ import annotations

from typing import Any

from tests.models.onnx.cases.table import Case, Draw, case, one_of, reals, up_to
from tests.models.onnx.check import node


def _moves(draw: Draw, rank: int, kernel: list[int], *, dilated: bool = True) -> dict[str, Any]:
    """Attributes of a window; no padding reaches the size of the kernel."""
    attributes: dict[str, Any] = {"kernel_shape": kernel}
    attributes |= one_of(draw, {}, {"strides": [up_to(draw, 1, 3) for _ in range(rank)]})
    attributes |= one_of(draw, {}, {"dilations": [up_to(draw, 1, 2) for _ in range(rank)]}) if dilated else {}
    padding = one_of(draw, "none", "pads", "SAME_UPPER", "SAME_LOWER", "VALID")
    if padding == "pads":
        attributes["pads"] = [up_to(draw, 0, size - 1) for size in kernel * 2]
    elif padding != "none":
        attributes["auto_pad"] = padding
        if padding.startswith("SAME"):
            attributes.pop("dilations", None)  # ONNX Runtime pads by negative numbers where the stride is larger
            strides = attributes.get("strides", [1] * rank)
            attributes["strides"] = [min(size, step) for size, step in zip(kernel, strides, strict=True)]
    return attributes


def _kernel(draw: Draw, rank: int) -> list[int]:
    return [up_to(draw, 1, 3) for _ in range(rank)]


@case("Conv")
def convolution(draw: Draw, opset: int) -> Case:
    rank, group = up_to(draw, 1, 3), up_to(draw, 1, 2)
    kernel = _kernel(draw, rank)
    weight, bias = reals(draw, 4, 2, *kernel), reals(draw, 4)
    sizes = [up_to(draw, 5, 8) for _ in range(rank)]
    names = one_of(draw, "x w", "x w b")
    constants = {"w": weight, "b": bias} if "b" in names else {"w": weight}
    attributes = _moves(draw, rank, kernel) | {"group": group}
    return Case([node("Conv", names, **attributes)], {"x": reals(draw, 2, 2 * group, *sizes)}, constants)


@case("ConvTranspose")
def transposed_convolution(draw: Draw, opset: int) -> Case:
    rank, group = up_to(draw, 1, 3), up_to(draw, 1, 2)
    kernel = _kernel(draw, rank)
    attributes = _moves(draw, rank, kernel) | {"group": group}
    if one_of(draw, True, False) and "auto_pad" not in attributes:
        extra = [up_to(draw, 0, stride - 1) for stride in attributes.get("strides", [1] * rank)]
        attributes["output_padding"] = extra
    constants = {"w": reals(draw, 2 * group, 2, *kernel)}
    constants |= one_of(draw, {}, {"b": reals(draw, 2 * group)})
    sizes = [up_to(draw, 3, 5) for _ in range(rank)]
    return Case(
        [node("ConvTranspose", " ".join(["x", *constants]), **attributes)],
        {"x": reals(draw, 2, 2 * group, *sizes)},
        constants,
    )


@case("ConvTranspose")
def transposed_convolution_to_a_size(draw: Draw, opset: int) -> Case:
    attributes: dict[str, Any] = {"strides": [2, 2], "output_shape": [up_to(draw, 7, 8), up_to(draw, 7, 8)]}
    attributes |= one_of(draw, {}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"})
    values = {"x": reals(draw, 1, 2, 4, 4)}
    return Case([node("ConvTranspose", "x w", **attributes)], values, {"w": reals(draw, 2, 3, 3, 3)})


@case("MaxPool")
def max_pool(draw: Draw, opset: int) -> Case:
    rank = up_to(draw, 1, 3)
    attributes = _moves(draw, rank, _kernel(draw, rank), dilated=opset >= 10)
    if "auto_pad" not in attributes and opset >= 10:
        attributes["ceil_mode"] = up_to(draw, 0, 1)
    return Case(
        [node("MaxPool", "x", **attributes)], {"x": reals(draw, 2, 3, *[up_to(draw, 6, 8) for _ in range(rank)])}
    )


@case("AveragePool")
def average_pool(draw: Draw, opset: int) -> Case:
    rank = up_to(draw, 1, 3)
    attributes = _moves(draw, rank, _kernel(draw, rank), dilated=False)
    attributes["count_include_pad"] = up_to(draw, 0, 1)
    if "auto_pad" not in attributes and opset >= 10:
        attributes["ceil_mode"] = up_to(draw, 0, 1)
    values = {"x": reals(draw, 2, 3, *[up_to(draw, 6, 8) for _ in range(rank)])}
    return Case([node("AveragePool", "x", **attributes)], values)


@case("GlobalAveragePool", "GlobalMaxPool")
def global_pool(draw: Draw, opset: int) -> Case:
    operator = one_of(draw, "GlobalAveragePool", "GlobalMaxPool")
    return Case([node(operator, "x")], {"x": reals(draw, 2, 3, *[4] * up_to(draw, 1, 3))})


@case("BatchNormalization")
def batch_norm(draw: Draw, opset: int) -> Case:
    constants = {name: reals(draw, 3) for name in "sbm"} | {"v": reals(draw, 3, low=0.1)}
    attributes = one_of(draw, {}, {"epsilon": 1e-3})
    values = {"x": reals(draw, 2, 3, *[4] * up_to(draw, 0, 3))}
    return Case([node("BatchNormalization", "x s b m v", **attributes)], values, constants)


@case("InstanceNormalization")
def instance_norm(draw: Draw, opset: int) -> Case:
    values = {"x": reals(draw, 2, 3, *[up_to(draw, 1, 4) for _ in range(up_to(draw, 1, 3))])}
    return Case(
        [node("InstanceNormalization", "x s b", epsilon=1e-2)], values, {"s": reals(draw, 3), "b": reals(draw, 3)}
    )


@case("GroupNormalization", opsets=(18, 20, 21))
def group_norm(draw: Draw, opset: int) -> Case:
    count = 2 if opset < 21 else 4
    constants = {"s": reals(draw, count), "b": reals(draw, count)}
    attributes = {"num_groups": 2} | one_of(draw, {}, {"epsilon": 1e-2})
    return Case([node("GroupNormalization", "x s b", **attributes)], {"x": reals(draw, 2, 4, 3, 3)}, constants)


@case("LayerNormalization", opsets=(17, 20, 21))
def layer_norm(draw: Draw, opset: int) -> Case:
    shape = (2, 3, 4)
    axis = one_of(draw, -1, -2, 1, 2)
    scale = reals(draw, *shape[axis:])
    names = one_of(draw, "x s", "x s b")
    constants = {"s": scale, "b": reals(draw, *shape[axis:])} if "b" in names else {"s": scale}
    return Case([node("LayerNormalization", names, axis=axis)], {"x": reals(draw, *shape)}, constants)


@case("RMSNormalization", opsets=(23,))
def rms_norm(draw: Draw, opset: int) -> Case:
    return Case([node("RMSNormalization", "x s")], {"x": reals(draw, 2, 3, 4)}, {"s": reals(draw, 4)})


@case("LpNormalization")
def lp_norm(draw: Draw, opset: int) -> Case:
    attributes = {"axis": one_of(draw, -1, 0, 1), "p": up_to(draw, 1, 2)}
    return Case([node("LpNormalization", "x", **attributes)], {"x": reals(draw, 2, 3, 4)})


@case("MeanVarianceNormalization", opsets=(9, 13, 17))
def mean_variance_norm(draw: Draw, opset: int) -> Case:
    return Case([node("MeanVarianceNormalization", "x")], {"x": reals(draw, 2, 3, 4, 4)})


@case("LRN")
def local_response_norm(draw: Draw, opset: int) -> Case:
    attributes = {"size": one_of(draw, 1, 3, 5), "alpha": 0.1, "beta": 0.5, "bias": 2.0}
    return Case([node("LRN", "x", **attributes)], {"x": reals(draw, 2, 5, 3, 3)})


@case("LSTM", "GRU", "RNN", opsets=(9, 13, 17, 21))
def recurrent(draw: Draw, opset: int) -> Case:
    kind, direction = one_of(draw, "LSTM", "GRU", "RNN"), one_of(draw, "forward", "reverse", "bidirectional")
    gates, count = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 2 if direction == "bidirectional" else 1
    steps, batch, size, hidden = up_to(draw, 1, 4), up_to(draw, 1, 3), up_to(draw, 1, 4), up_to(draw, 1, 4)
    constants = {
        "w": reals(draw, count, gates * hidden, size, low=-1, high=1),
        "r": reals(draw, count, gates * hidden, hidden, low=-1, high=1),
    }
    names = ["x", "w", "r"]
    bias, start = one_of(draw, True, False), one_of(draw, True, False)
    if bias:
        constants["b"] = reals(draw, count, 2 * gates * hidden, low=-1, high=1)
    names += ["b" if bias else "-", "-"]
    values = {"x": reals(draw, steps, batch, size)}
    if start:
        values["h"] = reals(draw, count, batch, hidden)
        names.append("h")
        if kind == "LSTM":
            constants["c"] = reals(draw, count, batch, hidden)
            names.append("c")
    outputs = ["y", "y_h", "y_c"] if kind == "LSTM" else ["y", "y_h"]
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if kind == "GRU":
        attributes["linear_before_reset"] = 1
    if kind == "RNN" and one_of(draw, True, False):
        attributes["activations"] = ["Relu"] * count
    return Case([node(kind, " ".join(names), " ".join(outputs), **attributes)], values, constants, outputs)
