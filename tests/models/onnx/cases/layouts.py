"""Shapes, reductions, indices, and images in another size."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from tests.models.onnx.cases.table import (
    Case,
    Draw,
    axes_of,
    bools,
    case,
    integers,
    ints,
    one_of,
    reals,
    shape_of,
    up_to,
)  # fmt: skip
from tests.models.onnx.check import node


def _with_axes(operator: str, axes: list[int], opset: int, since: int, **attributes: Any) -> tuple[Any, dict[str, Any]]:
    """A node whose axes are an attribute before `since`, an input after it."""
    if opset < since:
        return node(operator, "x", axes=axes, **attributes), {}
    return node(operator, "x axes", **attributes), {"axes": ints(*axes)}


@case("Shape")
def shape(draw: Draw, opset: int) -> Case:
    attributes = one_of(draw, {}, {"start": 1}, {"start": -1}, {"start": 0, "end": 1}) if opset >= 15 else {}
    return Case([node("Shape", "x", **attributes)], {"x": reals(draw, *shape_of(draw, 2))})


@case("Size")
def size(draw: Draw, opset: int) -> Case:
    return Case([node("Size", "x")], {"x": reals(draw, *shape_of(draw))})


@case("Reshape", "Concat", "Gather", "Unsqueeze", "Mul", "Shape", "ReduceProd", "Slice")
def reshape_by_computed_sizes(draw: Draw, opset: int) -> Case:
    """As TorchScript writes a flattening: the batch from Shape, the rest from a product."""
    axes = {"axes": [0]} if opset < 13 else {}
    names = " zero" if opset >= 13 else ""
    starts = {"starts": [1], "ends": [4]} if opset < 10 else {}
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s at", "batch"),
        node("Unsqueeze", f"batch{names}", "first", **axes),
        node("Slice", "s one four" if opset >= 10 else "s", "rest", **starts),
        node("ReduceProd", "rest", "area", keepdims=0),
        node("Unsqueeze", f"area{names}", "second", **axes),
        node("Mul", "second unit", "scaled"),
        node("Concat", "first scaled", "shape", axis=0),
        node("Reshape", "x shape"),
    ]
    constants = {"at": np.array(0, np.int64), "unit": ints(1)}
    constants |= {"zero": ints(0)} if opset >= 13 else {}
    constants |= {"one": ints(1), "four": ints(4)} if opset >= 10 else {}
    return Case(nodes, {"x": reals(draw, 2, 3, 4, 2)}, constants)


@case("Reshape")
def reshape(draw: Draw, opset: int) -> Case:
    shape = one_of(draw, (0, -1), (-1, 4), (2, 0, 2, 2), (24,), (1, -1, 1))
    return Case([node("Reshape", "x s")], {"x": reals(draw, 2, 3, 4)}, {"s": ints(*shape)})


@case("Flatten")
def flatten(draw: Draw, opset: int) -> Case:
    axis = up_to(draw, 0 if opset < 11 else -3, 3)
    return Case([node("Flatten", "x", axis=axis)], {"x": reals(draw, 2, 3, 4)})


@case("Transpose")
def transpose(draw: Draw, opset: int) -> Case:
    attributes = one_of(draw, {}, {"perm": [2, 0, 1]}, {"perm": [0, 2, 1]})
    return Case([node("Transpose", "x", **attributes)], {"x": reals(draw, 2, 3, 4)})


@case("Squeeze")
def squeeze(draw: Draw, opset: int) -> Case:
    axes = one_of(draw, [0], [2], [0, 2]) if opset < 11 else one_of(draw, [0], [-2], [0, 2])
    made, constants = _with_axes("Squeeze", axes, opset, 13)
    return Case([one_of(draw, made, node("Squeeze", "x"))], {"x": reals(draw, 1, 3, 1, 4)}, constants)


@case("Unsqueeze")
def unsqueeze(draw: Draw, opset: int) -> Case:
    axes = one_of(draw, [0], [1], [0, 3]) if opset < 11 else one_of(draw, [0], [-1], [0, -2], [3, 1])
    made, constants = _with_axes("Unsqueeze", axes, opset, 13)
    return Case([made], {"x": reals(draw, 3, 4)}, constants)


@case("Concat")
def concat(draw: Draw, opset: int) -> Case:
    values = {"a": reals(draw, 2, 3), "b": reals(draw, 2, 3)}
    axis = one_of(draw, 0, 1) if opset < 11 else one_of(draw, 0, -1)
    return Case([node("Concat", "a c b", axis=axis)], values, {"c": reals(draw, 2, 3)})


@case("Split")
def split(draw: Draw, opset: int) -> Case:
    even, axis = one_of(draw, True, False), 1
    values, outputs = {"x": reals(draw, 2, 6)}, ["p", "q"]
    if even:
        attributes = {"num_outputs": 2} if opset >= 18 else {}
        return Case([node("Split", "x", "p q", axis=axis, **attributes)], values, {}, outputs)
    if opset < 13:
        return Case([node("Split", "x", "p q", axis=axis, split=[2, 4])], values, {}, outputs)
    return Case([node("Split", "x s", "p q", axis=axis)], values, {"s": ints(2, 4)}, outputs)


@case("Split", opsets=(18, 21))
def split_with_a_rest(draw: Draw, opset: int) -> Case:
    outputs = ["p", "q", "r"]
    return Case([node("Split", "x", "p q r", axis=0, num_outputs=3)], {"x": reals(draw, 7, 2)}, {}, outputs)


@case("Split", opsets=(11,))
def split_of_sizes(draw: Draw, opset: int) -> Case:
    nodes = [
        node("Shape", "x", "s"),
        node("Split", "s", "p q", axis=0, **one_of(draw, {}, {"split": [1, 3]})),
        node("Concat", "q p", "t", axis=0),
        node("Reshape", "x t"),
    ]
    return Case(nodes, {"x": reals(draw, 2, 3, 4, 5)})


@case("Slice")
def slices(draw: Draw, opset: int) -> Case:
    rank = 3
    axes = axes_of(draw, rank)
    starts = [up_to(draw, -5, 3) for _ in axes]
    ends = [one_of(draw, 1, 4, -1, -9, (1 << 63) - 1) for _ in axes]
    values = {"x": reals(draw, 4, 5, 6)}
    if opset < 10:
        kept = [abs(axis) % rank if axis >= 0 else axis + rank for axis in axes]
        return Case([node("Slice", "x", axes=kept, starts=starts, ends=ends)], values)
    steps = [one_of(draw, 1, 2, -1, -2) for _ in axes]
    ends = [end if step > 0 else one_of(draw, 0, -9, -(1 << 62)) for end, step in zip(ends, steps, strict=True)]
    constants = {"s": ints(*starts), "e": ints(*ends), "axes": ints(*axes), "steps": ints(*steps)}
    return Case([node("Slice", "x s e axes steps")], values, constants)


@case("Expand")
def expand(draw: Draw, opset: int) -> Case:
    wanted = one_of(draw, (3,), (2, 3), (2, 1, 4), (5, 1, 3, 4))
    value = reals(draw, *((3, 4) if len(wanted) > 2 else (2, 1) if wanted == (2, 3) else (2, 3)))
    value = value[:, :1] if wanted == (3,) else value
    return Case(
        [node("Expand", "x s")],
        {"x": np.ascontiguousarray(value if len(wanted) != 3 else value[:, :])},
        {"s": ints(*wanted)},
    )


@case("Tile")
def tile(draw: Draw, opset: int) -> Case:
    return Case([node("Tile", "x r")], {"x": reals(draw, 2, 3)}, {"r": ints(up_to(draw, 1, 3), up_to(draw, 1, 3))})


@case("Pad")
def pad(draw: Draw, opset: int) -> Case:
    mode = one_of(draw, "constant", "reflect", "edge", *(["wrap"] if opset >= 19 else []))
    rank = one_of(draw, 2, 4)
    shape = [4, 5, 4, 5][-rank:]
    pads = [up_to(draw, 0, 2) for _ in range(2 * rank)]
    if rank == 4 and mode != "constant" and one_of(draw, True, False):
        pads[:2] = pads[4:6] = [0, 0]
    values = {"x": reals(draw, *shape)}
    if opset < 11:
        return Case([node("Pad", "x", mode=mode, pads=pads, value=1.5)], values)
    constants = {"p": ints(*pads)}
    if mode == "constant" and one_of(draw, True, False):
        return Case([node("Pad", "x p v", mode=mode)], values, constants | {"v": np.array(1.5, np.float32)})
    return Case([node("Pad", "x p", mode=mode)], values, constants)


@case("Pad", opsets=(18, 21))
def pad_of_axes(draw: Draw, opset: int) -> Case:
    constants = {"p": ints(1, -1, 2, 0), "axes": ints(-1, 0), "v": np.array(0.5, np.float32)}
    return Case([node("Pad", "x p v axes")], {"x": reals(draw, 4, 5)}, constants)


@case("ConstantOfShape", "Add", "Shape")
def constant_of_shape(draw: Draw, opset: int) -> Case:
    value = numpy_helper.from_array(np.array([one_of(draw, 0.0, 2.5)], np.float32))
    nodes = [node("Shape", "x", "s"), node("ConstantOfShape", "s", "c", value=value), node("Add", "x c")]
    return Case(nodes, {"x": reals(draw, *shape_of(draw))})


@case("ConstantOfShape", "Where", "Equal", "Expand", "Cast")
def expand_as_torch_writes_it(draw: Draw, opset: int) -> Case:
    """A size of -1 keeps that of the input: ConstantOfShape, Mul, Equal, Where."""
    fill = numpy_helper.from_array(np.array([1], np.int64))
    nodes = [
        node("ConstantOfShape", "rank", "ones", value=fill),
        node("Mul", "ones minus", "keep"),
        node("Equal", "wanted keep", "is_kept"),
        node("Where", "is_kept ones wanted", "shape"),
        node("Cast", "shape", "cast", to=TensorProto.INT64),
        node("Expand", "x cast"),
    ]
    constants = {"rank": ints(3), "minus": np.array(-1, np.int64), "wanted": ints(5, -1, -1)}
    return Case(nodes, {"x": reals(draw, 1, 3, 4)}, constants)


@case("Range", opsets=(11, 13, 17, 21))
def ranges(draw: Draw, opset: int) -> Case:
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s at", "n"),
        node("Range", "zero n one", "r"),
        node("Cast", "r", to=1),
    ]
    zero, one = np.array(0, np.int64), np.array(one_of(draw, 1, 2), np.int64)
    return Case(nodes, {"x": reals(draw, 4, 3)}, {"at": np.array(0, np.int64), "zero": zero, "one": one})


@case("Range", opsets=(11, 17))
def real_ranges(draw: Draw, opset: int) -> Case:
    constants = {"a": np.array(0.5, np.float32), "b": np.array(3.0, np.float32), "c": np.array(0.5, np.float32)}
    return Case([node("Range", "a b c", "r"), node("Add", "x r")], {"x": reals(draw, 5)}, constants)


@case("Where")
def where(draw: Draw, opset: int) -> Case:
    values = {"c": bools(draw, 2, 3), "a": reals(draw, 2, 3)}
    other = one_of(draw, np.array(-1e9, np.float32), reals(draw, 3), reals(draw, 1))
    return Case([node("Where", one_of(draw, "c a b", "c b a"))], values, {"b": other})


@case("Trilu", opsets=(14, 17, 21))
def trilu(draw: Draw, opset: int) -> Case:
    constants = one_of(draw, {}, {"k": np.array(up_to(draw, -2, 2), np.int64)})
    names = " ".join(["x", *constants])
    return Case([node("Trilu", names, upper=up_to(draw, 0, 1))], {"x": reals(draw, 2, 3, 4)}, constants)


@case("Cast")
def cast(draw: Draw, opset: int) -> Case:
    to = one_of(draw, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.FLOAT)
    value = one_of(draw, reals(draw, 3, 4), integers(draw, 3, 4), bools(draw, 3, 4))
    return Case([node("Cast", "x", to=to)], {"x": value})


@case("CastLike", opsets=(15, 17, 21))
def cast_like(draw: Draw, opset: int) -> Case:
    return Case([node("CastLike", "x z")], {"x": integers(draw, 3), "z": reals(draw, 1)})


@case(
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
    "ReduceLogSum", "ReduceLogSumExp", opsets=(9, 11, 13, 17, 18, 21),
)  # fmt: skip
def reduction(draw: Draw, opset: int) -> Case:
    name = one_of(draw, "Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
    axes = axes_of(draw, 3)
    axes = axes if opset >= 11 else [axis % 3 for axis in axes]
    values = {"x": reals(draw, 2, 3, 4, low=0.2, high=2)}
    since = 13 if name == "Sum" else 18
    attributes = one_of(draw, {}, {"keepdims": 0}, {"keepdims": 1})
    made, constants = _with_axes(f"Reduce{name}", axes, opset, since, **attributes)
    if one_of(draw, True, False):
        return Case([made], values, constants)
    extra = (
        {"noop_with_empty_axes": 1} if opset >= since and name in ("Sum", "Mean", "Max") and up_to(draw, 0, 1) else {}
    )
    return Case([node(f"Reduce{name}", "x", **attributes, **extra)], values)


@case("ArgMax", "ArgMin")
def position(draw: Draw, opset: int) -> Case:
    attributes = {"axis": one_of(draw, 0, 1), "keepdims": up_to(draw, 0, 1)}
    attributes |= {"select_last_index": up_to(draw, 0, 1)} if opset >= 12 else {}
    return Case([node(one_of(draw, "ArgMax", "ArgMin"), "x", **attributes)], {"x": np.round(reals(draw, 3, 4) * 10)})


@case("ArgMax", opsets=(13,))
def last_of_equal_ones(draw: Draw, opset: int) -> Case:
    value = np.round(reals(draw, 3, 6) / 3)
    return Case([node("ArgMax", "x", axis=1, select_last_index=1)], {"x": value.astype(np.float32)})


@case("TopK")
def top(draw: Draw, opset: int) -> Case:
    count, outputs = up_to(draw, 1, 4), ["v", "i"]
    values = {"x": reals(draw, 3, 4)}
    if opset < 10:
        return Case([node("TopK", "x", "v i", k=count, axis=1)], values, {}, outputs)
    attributes = {"largest": up_to(draw, 0, 1)} if opset >= 11 else {}
    return Case([node("TopK", "x k", "v i", axis=1, **attributes)], values, {"k": ints(count)}, outputs)


@case("CumSum", opsets=(11, 14, 17))
def running_sum(draw: Draw, opset: int) -> Case:
    attributes = {"exclusive": up_to(draw, 0, 1), "reverse": up_to(draw, 0, 1)}
    constants = {"k": np.array(one_of(draw, 0, 1, -1), np.int64)}
    return Case([node("CumSum", "x k", **attributes)], {"x": reals(draw, 3, 4)}, constants)


@case("Gather")
def gather(draw: Draw, opset: int) -> Case:
    axis = one_of(draw, 0, 1)
    low = -3 if opset >= 11 else 0
    indices = integers(draw, *one_of(draw, (), (2,), (2, 2)), low=low, high=3)
    indices = np.asarray(indices)
    value = reals(draw, 3, 3, *one_of(draw, (), (2,)))
    kinds = one_of(draw, "data", "index", "table")
    if kinds == "data":
        return Case([node("Gather", "x i", axis=axis)], {"x": value, "i": indices})
    if kinds == "index":
        return Case([node("Gather", "x i", axis=axis)], {"x": value}, {"i": indices})
    return Case([node("Gather", "x i", axis=axis)], {"i": indices}, {"x": value})


@case("GatherElements", opsets=(11, 13, 17))
def gather_elements(draw: Draw, opset: int) -> Case:
    indices = integers(draw, 3, 4, low=-3, high=3)
    return Case([node("GatherElements", "x i", axis=0)], {"x": reals(draw, 3, 4), "i": indices})


@case("GatherND", opsets=(12, 13, 17))
def gather_nd(draw: Draw, opset: int) -> Case:
    batch = up_to(draw, 0, 1)
    indices = integers(draw, 2, 3, up_to(draw, 1, 2), low=0, high=2)
    return Case([node("GatherND", "x i", batch_dims=batch)], {"x": reals(draw, 2, 2, 3), "i": indices})


@case("ScatterND", opsets=(11, 13, 16, 18))
def scatter_nd(draw: Draw, opset: int) -> Case:
    attributes = {"reduction": one_of(draw, "none", "add")} if opset >= 16 else {}
    values = {"x": reals(draw, 4, 3), "u": reals(draw, 2, 3)}
    return Case([node("ScatterND", "x i u", **attributes)], values, {"i": np.array([[1], [-1]], np.int64)})


@case("ScatterElements", "Scatter", opsets=(9, 11, 13, 16, 18))
def scatter_elements(draw: Draw, opset: int) -> Case:
    reductions = ["none", *(["add", "mul"] if opset >= 16 else []), *(["max", "min"] if opset >= 18 else [])]
    attributes = {"reduction": one_of(draw, *reductions)} if opset >= 16 else {}
    indices = np.array([[0, 2], [1, 0 if opset < 11 else -1]], np.int64)
    values = {"x": reals(draw, 2, 3), "u": reals(draw, 2, 2)}
    operator = "Scatter" if opset < 11 else "ScatterElements"
    return Case([node(operator, "x i u", axis=1, **attributes)], values, {"i": indices})


@case("OneHot")
def one_hot(draw: Draw, opset: int) -> Case:
    constants = {"d": ints(4), "v": np.array([-1, 2], np.float32)}
    indices = integers(draw, 2, 3, low=-4 if opset >= 11 else 0, high=4)
    return Case([node("OneHot", "i d v", axis=one_of(draw, -1, 0, 1))], {"i": indices}, constants)


_COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@case("Resize", opsets=(11, 13, 18, 19, 21))
def resize_of_images(draw: Draw, opset: int) -> Case:
    mode = one_of(draw, "nearest", "linear", "cubic")
    coordinates = one_of(draw, *_COORDINATES, *(["half_pixel_symmetric"] if opset >= 19 and mode != "nearest" else []))
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = one_of(draw, *_ROUNDINGS)
    values = {"x": reals(draw, 1, 2, up_to(draw, 2, 6), up_to(draw, 2, 6))}
    empty = {"e": np.zeros(0, np.float32)} if opset < 13 else {}
    left_out = "e" if empty else "-"
    if one_of(draw, True, False):
        sizes = ints(1, 2, up_to(draw, 1, 12), up_to(draw, 1, 12))
        return Case([node("Resize", f"x {left_out} {left_out} s", **attributes)], values, {"s": sizes} | empty)
    scales = np.array([1, 1, one_of(draw, 2.0, 3.0, 0.5, 1.5), one_of(draw, 1.0, 2.0, 4.0, 0.6)], np.float32)
    return Case([node("Resize", f"x {left_out} s", **attributes)], values, {"s": scales} | empty)


@case("Resize", opsets=(13, 18))
def resize_of_lines(draw: Draw, opset: int) -> Case:
    attributes = {
        "mode": one_of(draw, "nearest", "linear"),
        "coordinate_transformation_mode": one_of(draw, *_COORDINATES),
    }
    scales = np.array([1, 1, one_of(draw, 2.0, 0.5, 3.0)], np.float32)
    return Case([node("Resize", "x - s", **attributes)], {"x": reals(draw, 2, 3, 6)}, {"s": scales})


@case("Resize", opsets=(13,))
def resize_by_other_cubics(draw: Draw, opset: int) -> Case:
    attributes = {"mode": "cubic", "cubic_coeff_a": one_of(draw, -0.5, -0.75), "exclude_outside": up_to(draw, 0, 1)}
    scales = np.array([1, 1, 2, one_of(draw, 1.5, 2.0)], np.float32)
    return Case([node("Resize", "x - s", **attributes)], {"x": reals(draw, 1, 2, 4, 4)}, {"s": scales})


@case("Resize", opsets=(18, 21))
def resize_of_axes(draw: Draw, opset: int) -> Case:
    values, constants = {"x": reals(draw, 1, 2, 4, 5)}, {"s": ints(7, 8)}
    return Case([node("Resize", "x - - s", mode="linear", axes=[2, 3])], values, constants)


@case("Resize", opsets=(10,))
def resize_of_old_files(draw: Draw, opset: int) -> Case:
    scales = np.array([1, 1, one_of(draw, 2.0, 1.5), one_of(draw, 2.0, 0.5)], np.float32)
    values = {"x": reals(draw, 1, 2, 4, 6)}
    return Case([node("Resize", "x s", mode=one_of(draw, "nearest", "linear"))], values, {"s": scales})


@case("Upsample", opsets=(9,))
def upsample(draw: Draw, opset: int) -> Case:
    scales = np.array([1, 1, one_of(draw, 2.0, 1.5), one_of(draw, 2.0, 3.0)], np.float32)
    values = {"x": reals(draw, 1, 2, 4, 6)}
    return Case([node("Upsample", "x s", mode=one_of(draw, "nearest", "linear"))], values, {"s": scales})


@case("GridSample", opsets=(16, 20, 21))
def grid_sample(draw: Draw, opset: int) -> Case:
    modes = ("bilinear", "nearest", "bicubic") if opset < 20 else ("linear", "nearest", "cubic")
    padding = one_of(draw, "zeros", "border", "reflection")
    attributes = {"mode": one_of(draw, *modes), "padding_mode": padding, "align_corners": up_to(draw, 0, 1)}
    values = {"x": reals(draw, 1, 2, 4, 5), "g": reals(draw, 1, 3, 3, 2, low=-1.2, high=1.2)}
    return Case([node("GridSample", "x g", **attributes)], values)


@case("DepthToSpace", opsets=(11, 13, 17))
def depth_to_space(draw: Draw, opset: int) -> Case:
    attributes = {"blocksize": 2, "mode": one_of(draw, "DCR", "CRD")}
    return Case([node("DepthToSpace", "x", **attributes)], {"x": reals(draw, 2, 8, 2, 3)})


@case("SpaceToDepth")
def space_to_depth(draw: Draw, opset: int) -> Case:
    return Case([node("SpaceToDepth", "x", blocksize=2)], {"x": reals(draw, 2, 3, 4, 6)})
