"""Arithmetic, comparisons and logic, element by element."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snowsdeploy.models.onnx import host
from snowsdeploy.models.onnx.call import Call, Result, Value
from snowsdeploy.models.onnx.rules.registry import RULES, plain, rule, tensor_rule

Binary = Callable[[Any, Any], Any]  # of tensors, one of which may be a number


def _divided(left: Any, right: Any) -> Any:  # noqa: ANN401 - tensors, one of which may be a number
    """Division, towards zero for integers."""
    if (left if isinstance(left, Tensor) else right).is_floating_point():
        return left / right
    if not isinstance(left, Tensor):
        left = torch.full_like(right, left)
    return torch.div(left, right, rounding_mode="trunc")


_BINARY: dict[str, Binary] = {
    "Add": lambda left, right: left + right,
    "Sub": lambda left, right: left - right,
    "Mul": lambda left, right: left * right,
    "Div": _divided,
    "Equal": lambda left, right: left == right,
    "Greater": lambda left, right: left > right,
    "GreaterOrEqual": lambda left, right: left >= right,
    "Less": lambda left, right: left < right,
    "LessOrEqual": lambda left, right: left <= right,
}
_LOGIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}


def _register_binary(operator: str, function: Binary, *, plain_numbers: bool) -> None:
    def on_two(call: Call, left: Value, right: Value) -> Result:
        if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
            return host.binary(operator, left, right)
        if not plain_numbers:
            left, right = call.tensor(left), call.tensor(right)
        result: Tensor = function(call.operand(left, right), call.operand(right, left))
        return result

    RULES[operator] = on_two


for _name, _function in _BINARY.items():
    _register_binary(_name, _function, plain_numbers=True)
for _name, _logic in _LOGIC.items():
    _register_binary(_name, _logic, plain_numbers=False)


@rule("Pow")
def _power(call: Call, base: Value, exponent: Value) -> Result:
    """The result has the base's type."""
    if isinstance(base, np.ndarray) and isinstance(exponent, np.ndarray):
        return host.binary("Pow", base, exponent)
    value = call.tensor(base)
    power = call.operand(exponent, value)
    if isinstance(power, float) and power.is_integer():
        power = int(power)  # torch differentiates whole powers of negative numbers
    if not value.is_floating_point() and not isinstance(power, int):
        return torch.pow(value.to(torch.float64), power).to(value.dtype)
    return torch.pow(value, power).to(value.dtype)


@rule("Mod")
def _modulo(call: Call, left: Value, right: Value) -> Result:
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray) and not call.flag("fmod"):
        return host.binary("Mod", left, right)
    return (torch.fmod if call.flag("fmod") else torch.remainder)(call.tensor(left), call.operand(right, left))


def _register_variadic(operator: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    def on_many(call: Call, *values: Value) -> Result:
        arrays = [value for value in values if isinstance(value, np.ndarray)]
        if operator in host.BINARY and len(arrays) == len(values):
            return functools.reduce(lambda left, right: host.binary(operator, left, right), arrays)
        return functools.reduce(function, map(call.tensor, values))

    RULES[operator] = on_many


_register_variadic("Min", torch.minimum)
_register_variadic("Max", torch.maximum)
_register_variadic("Sum", torch.add)


@tensor_rule("Mean")
def _mean(call: Call, *values: Tensor) -> Tensor:
    return functools.reduce(torch.add, values) / len(values)


def _register_unary(operator: str, function: Callable[[Tensor], Tensor]) -> None:
    def on_one(call: Call, value: Value) -> Result:
        return host.unary(operator, value) if isinstance(value, np.ndarray) else function(call.tensor(value))

    RULES[operator] = on_one


_register_unary("Neg", torch.neg)
_register_unary("Abs", torch.abs)
_register_unary("Floor", torch.floor)
_register_unary("Ceil", torch.ceil)
_register_unary("Not", torch.logical_not)

_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "Sqrt": torch.sqrt, "Reciprocal": torch.reciprocal, "Exp": torch.exp, "Log": torch.log, "Erf": torch.erf,
    "Round": torch.round, "Sign": torch.sign, "IsNaN": torch.isnan,
    "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan, "Asin": torch.asin, "Acos": torch.acos, "Atan": torch.atan,
    "Sinh": torch.sinh, "Cosh": torch.cosh, "Asinh": torch.asinh, "Acosh": torch.acosh, "Atanh": torch.atanh,
}  # fmt: skip
for _name, _plain in _PLAIN.items():
    plain(_name, _plain)


@tensor_rule("IsInf")
def _is_infinite(call: Call, value: Tensor) -> Tensor:
    positive, negative = call.flag("detect_positive", default=True), call.flag("detect_negative", default=True)
    if positive and negative:
        return torch.isinf(value)
    if positive or negative:
        return torch.isposinf(value) if positive else torch.isneginf(value)
    return torch.zeros_like(value, dtype=torch.bool)


@rule("Clip")
def _clip(call: Call, value: Value, low: Value = None, high: Value = None) -> Result:
    bounds = [_bound(call, "min", low), _bound(call, "max", high)]
    tensor = call.tensor(value)
    return tensor if bounds == [None, None] else torch.clamp(tensor, *bounds)


def _bound(call: Call, name: str, value: Value) -> Any:  # noqa: ANN401 - a number, a tensor or None
    """An attribute before opset 11, an input after it."""
    if isinstance(value, np.ndarray):
        return call.number(value, name)
    return call.get(name) if value is None else call.tensor(value)
