"""Arithmetic, comparisons, logic and activations."""

from __future__ import annotations

import numpy as np

from tests.models.onnx.cases.table import (
    ALL,
    CASES,
    Case,
    Draw,
    Entry,
    bools,
    case,
    integers,
    one_of,
    reals,
    shape_of,
    up_to,
)  # fmt: skip
from tests.models.onnx.check import node

_DOMAINS = {
    "Sqrt": (0, 3), "Log": (0.1, 3), "Reciprocal": (0.2, 3), "Asin": (-1, 1), "Acos": (-1, 1), "Acosh": (1, 3),
    "Atanh": (-0.9, 0.9), "Tan": (-1, 1),
}  # fmt: skip
_UNARY = {
    9: [
        "Relu",
        "Sigmoid",
        "Tanh",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Reciprocal",
        "Exp",
        "Log",
        "Erf",
        "Sign",
        "Sin",
        "Cos",
        "Tan",
        "Asin",
        "Acos",
        "Atan",
        "Sinh",
        "Cosh",
        "Asinh",
        "Acosh",
        "Atanh",
        "Neg",
        "Abs",
        "Floor",
        "Ceil",
        "Identity",
        "Dropout",
    ],
    11: ["Round"],
    14: ["HardSwish"],
    18: ["Mish"],
}


def _unary(operator: str):
    def build(draw: Draw, opset: int) -> Case:
        low, high = _DOMAINS.get(operator, (-3, 3))
        return Case([node(operator, "x")], {"x": reals(draw, *shape_of(draw), low=low, high=high)})

    return build


for _first, _names in _UNARY.items():
    for _name in _names:
        _opsets = tuple(opset for opset in ALL if opset >= _first)
        CASES.append(Entry(_name.lower(), (_name,), _opsets, _unary(_name)))


def _pair(draw: Draw) -> tuple[list[int], list[int]]:
    shape = shape_of(draw, 1, 3)
    other = [one_of(draw, 1, size) for size in shape][up_to(draw, 0, len(shape)) :]
    return (shape, other) if one_of(draw, True, False) else (other, shape)


@case("Add", "Sub", "Mul", "Div")
def arithmetic(draw: Draw, opset: int) -> Case:
    one, other = _pair(draw)
    operator = one_of(draw, "Add", "Sub", "Mul", "Div")
    right = reals(draw, *other, low=0.5)
    held = one_of(draw, True, False)
    return Case(
        [node(operator, "a b")], {"a": reals(draw, *one)} | ({} if held else {"b": right}), {"b": right} if held else {}
    )


@case("Add", "Sub", "Mul", "Div")
def whole_arithmetic(draw: Draw, opset: int) -> Case:
    one, other = _pair(draw)
    operator = one_of(draw, "Add", "Sub", "Mul", "Div")
    right = integers(draw, *other, low=1)
    right = right * one_of(draw, 1, -1)
    left = one_of(draw, True, False)
    values = {"a": integers(draw, *one, low=-9, high=9)}
    if left:
        return Case([node(operator, "a b")], values, {"b": right})
    return Case([node(operator, "b a")], {"a": np.where(values["a"] == 0, 1, values["a"])}, {"b": right})


@case("Equal", "Greater", "Less", opsets=(11, 13, 17, 21))
def comparison(draw: Draw, opset: int) -> Case:
    one, other = _pair(draw)
    operator = one_of(draw, "Equal", "Greater", "Less")
    return Case([node(operator, "a b")], {"a": integers(draw, *one), "b": integers(draw, *other)})


@case("GreaterOrEqual", "LessOrEqual", opsets=(13, 17, 21))
def ordering(draw: Draw, opset: int) -> Case:
    one, other = _pair(draw)
    operator = one_of(draw, "GreaterOrEqual", "LessOrEqual")
    return Case([node(operator, "a b")], {"a": integers(draw, *one), "b": integers(draw, *other)})


@case("And", "Or", "Xor", "Not")
def logic(draw: Draw, opset: int) -> Case:
    one, other = _pair(draw)
    operator = one_of(draw, "And", "Or", "Xor")
    return Case([node(operator, "a b", "c"), node("Not", "c")], {"a": bools(draw, *one), "b": bools(draw, *other)})


@case("Pow")
def power(draw: Draw, opset: int) -> Case:
    exponent = np.array(one_of(draw, 0.5, 1.0, 2.0, -1.0, 3.0, 1.7), np.float32).reshape(one_of(draw, (), (1,)))
    return Case([node("Pow", "a b")], {"a": reals(draw, *shape_of(draw), low=0.2)}, {"b": exponent})


@case("Pow")
def whole_power_of_negative(draw: Draw, opset: int) -> Case:
    return Case([node("Pow", "a b")], {"a": reals(draw, *shape_of(draw))}, {"b": np.array(2, np.float32)})


@case("Pow", opsets=(13, 17))
def power_of_tensor(draw: Draw, opset: int) -> Case:
    one, other = _pair(draw)
    return Case([node("Pow", "a b")], {"a": reals(draw, *one, low=0.2), "b": reals(draw, *other)})


@case("Mod", opsets=(11, 13, 17, 21))
def modulo(draw: Draw, opset: int) -> Case:
    shape = shape_of(draw)
    if one_of(draw, True, False):
        values = {"a": reals(draw, *shape), "b": reals(draw, *shape, low=0.5)}
        return Case([node("Mod", "a b", fmod=1)], values)
    return Case([node("Mod", "a b")], {"a": integers(draw, *shape), "b": integers(draw, *shape, low=1)})


@case("Min", "Max", "Sum", "Mean")
def variadic(draw: Draw, opset: int) -> Case:
    one, other = _pair(draw)
    operator = one_of(draw, "Min", "Max", "Sum", "Mean")
    names = one_of(draw, "a", "a b", "a b c")
    values = {"a": reals(draw, *one), "b": reals(draw, *other), "c": reals(draw, *one)}
    return Case([node(operator, names)], {name: values[name] for name in names.split()})


@case("IsNaN", "IsInf", opsets=(13, 17, 21))
def special_numbers(draw: Draw, opset: int) -> Case:
    value = reals(draw, 6)
    value[:3] = np.nan, np.inf, -np.inf
    if one_of(draw, True, False):
        return Case([node("IsNaN", "x")], {"x": value})
    signs = {"detect_positive": up_to(draw, 0, 1), "detect_negative": up_to(draw, 0, 1)}
    return Case([node("IsInf", "x", **signs)], {"x": value})


@case("Clip")
def clip(draw: Draw, opset: int) -> Case:
    low, high = one_of(draw, None, -1.0), one_of(draw, None, 0.5)
    value = {"x": reals(draw, *shape_of(draw))}
    if opset < 11:
        bounds = {name: bound for name, bound in (("min", low), ("max", high)) if bound is not None}
        return Case([node("Clip", "x", **bounds)], value)
    held = {name: np.array(bound, np.float32) for name, bound in (("a", low), ("b", high)) if bound is not None}
    names = f"x {'a' if low else '-'}" + (" b" if high else "")
    return Case([node("Clip", names)], value, held)


@case("LeakyRelu", "ThresholdedRelu", "Elu", "HardSigmoid", "Selu", "Shrink", opsets=(11, 13, 17, 21))
def activation(draw: Draw, opset: int) -> Case:
    operator = one_of(draw, "LeakyRelu", "ThresholdedRelu", "Elu", "HardSigmoid", "Selu", "Shrink")
    names = {"HardSigmoid": ("alpha", "beta"), "Selu": ("alpha", "gamma"), "Shrink": ("bias", "lambd")}
    given = {name: one_of(draw, 0.3, 1.2) for name in names.get(operator, ("alpha",))}
    return Case([node(operator, "x", **one_of(draw, {}, given))], {"x": reals(draw, *shape_of(draw))})


@case("Celu", opsets=(13, 17))
def celu(draw: Draw, opset: int) -> Case:
    return Case([node("Celu", "x", alpha=one_of(draw, 1.0, 0.7))], {"x": reals(draw, 2, 3, 4, 2)})


@case("Gelu", opsets=(20, 21))
def gelu(draw: Draw, opset: int) -> Case:
    attributes = one_of(draw, {}, {"approximate": "tanh"}, {"approximate": "none"})
    return Case([node("Gelu", "x", **attributes)], {"x": reals(draw, *shape_of(draw))})


@case("Swish", opsets=(24,))
def swish(draw: Draw, opset: int) -> Case:
    return Case([node("Swish", "x", alpha=one_of(draw, 1.0, 1.5))], {"x": reals(draw, *shape_of(draw))})


@case("PRelu")
def prelu(draw: Draw, opset: int) -> Case:
    shape = one_of(draw, (3, 1, 1), (1,), (1, 3, 1, 1))
    return Case([node("PRelu", "x s")], {"x": reals(draw, 2, 3, 4, 4)}, {"s": reals(draw, *shape)})


@case("Softmax", "LogSoftmax")
def softmax(draw: Draw, opset: int) -> Case:
    shape = shape_of(draw, 2)
    axis = one_of(draw, None, *range(0 if opset < 11 else -len(shape), len(shape)))
    attributes = {} if axis is None else {"axis": axis}
    operator = one_of(draw, "Softmax", "LogSoftmax")
    return Case([node(operator, "x", **attributes)], {"x": reals(draw, *shape)})


@case("Einsum", opsets=(13, 17))
def einsum(draw: Draw, opset: int) -> Case:
    values = {"a": reals(draw, 2, 3, 4), "b": reals(draw, 2, 4, 5)}
    return Case([node("Einsum", "a b", equation="bij,bjk->bik")], values)


@case("MatMul")
def matmul(draw: Draw, opset: int) -> Case:
    shape = shape_of(draw, 1, 4)
    right = reals(draw, shape[-1], up_to(draw, 1, 5))
    held = one_of(draw, True, False)
    values = {"a": reals(draw, *shape)} | ({} if held else {"b": right})
    return Case([node("MatMul", "a b")], values, {"b": right} if held else {})


@case("MatMul")
def matmul_of_constants_of_any_rank(draw: Draw, opset: int) -> Case:
    left = one_of(draw, True, False)
    matrix, value = reals(draw, *one_of(draw, (4, 4), (2, 4, 4))), reals(draw, 2, 4, 4)
    return Case([node("MatMul", "w a" if left else "a w")], {"a": value}, {"w": matrix})


@case("Attention", opsets=(23,))
def attention(draw: Draw, opset: int) -> Case:
    rows, others, groups = up_to(draw, 1, 4), up_to(draw, 1, 4), one_of(draw, 1, 2, 4)
    values = {
        "q": reals(draw, 2, 4, rows, 3),
        "k": reals(draw, 2, groups, others, 3),
        "v": reals(draw, 2, groups, others, 5),
    }
    attributes = one_of(draw, {}, {"is_causal": 1}, {"scale": 0.3})
    if one_of(draw, True, False):
        values = {
            name: np.ascontiguousarray(value.transpose(0, 2, 1, 3)).reshape(2, value.shape[2], -1)
            for name, value in values.items()
        }
        attributes |= {"q_num_heads": 4, "kv_num_heads": groups}
    mask = one_of(draw, {}, {"m": reals(draw, rows, others)})
    return Case([node("Attention", " ".join([*values, *mask]), **attributes)], values | mask)


@case("Gemm")
def gemm(draw: Draw, opset: int) -> Case:
    rows, inner, columns = up_to(draw, 1, 4), up_to(draw, 1, 4), up_to(draw, 1, 4)
    flipped, turned = up_to(draw, 0, 1), up_to(draw, 0, 1)
    value, weight = reals(draw, rows, inner), reals(draw, inner, columns)
    bias = reals(draw, *one_of(draw, (columns,), (1,), (), (rows, columns), (rows, 1)))
    names = one_of(draw, "a w", "a w b") if opset >= 11 else "a w b"
    scales = {"alpha": one_of(draw, 1.0, 0.5), "beta": one_of(draw, 1.0, 2.0)}
    constants = {"w": np.ascontiguousarray(weight.T if turned else weight)} | ({"b": bias} if "b" in names else {})
    held = one_of(draw, True, False)
    values = {"a": np.ascontiguousarray(value.T if flipped else value)} | ({} if held else {"w": constants.pop("w")})
    return Case([node("Gemm", names, transA=flipped, transB=turned, **scales)], values, constants)
