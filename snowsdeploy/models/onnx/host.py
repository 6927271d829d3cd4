"""Arithmetic on the numbers of shapes, which stay Python integers and torch's symbols for the sake of torch.export."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from snowsdeploy.models.onnx.layouts import Array

Number = Any  # int, float, bool, torch.SymInt or torch.SymFloat: torch's symbols have no common type with numbers
SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)
SMALL = 64  # elements; longer tensors are data, not sizes


def is_symbol(value: object) -> bool:
    """Whether torch.export traces this number."""
    return isinstance(value, SYMBOLS)


def tidy(values: Iterable[Number], shape: tuple[int, ...] | None = None) -> Array:
    """An array of these numbers, of type object only where symbols are among them."""
    numbers = list(values)
    if any(map(is_symbol, numbers)):
        array = np.empty(len(numbers), object)
        array[:] = numbers
    elif any(isinstance(number, float) for number in numbers):
        array = np.array(numbers, np.float32)
    else:
        array = np.array(numbers, np.bool_ if numbers and all(isinstance(n, bool) for n in numbers) else np.int64)
    return array if shape is None else array.reshape(shape)


def retyped(array: Array) -> Array:
    """The array, with a number's type again where no symbol is left in it."""
    return tidy(array.reshape(-1).tolist(), array.shape) if array.dtype == object else array


def mapped(function: Callable[..., Number], *arrays: Array) -> Array:
    """The function of every element, with the operands broadcast."""
    operands = np.broadcast_arrays(*(array.astype(object) for array in arrays))
    rows = zip(*(operand.reshape(-1).tolist() for operand in operands), strict=True)
    return tidy((function(*row) for row in rows), operands[0].shape)


def truncated_quotient(left: Number, right: Number) -> Number:
    """Division as ONNX has it: towards zero for integers."""
    if isinstance(left, float | torch.SymFloat) or isinstance(right, float | torch.SymFloat):
        exact = isinstance(right, float) and right.is_integer() and right != 0 and isinstance(left, torch.SymInt)
        return left / int(right) if exact else left / right
    if left >= 0 and right > 0:
        return left // right
    quotient = abs(left) // abs(right)
    return quotient if (left >= 0) == (right >= 0) else -quotient


def product(left: Number, right: Number) -> Number:
    """Multiplication that keeps a size an integer where a whole number in floating point multiplies it."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, torch.SymInt) and isinstance(other, float) and other.is_integer():
            return one * int(other)
    return left * right


def rounded_down(value: Number) -> Number:
    """The largest integer below, as the type of number that a size is."""
    return value if isinstance(value, torch.SymInt) else math.floor(value)


def rounded_up(value: Number) -> Number:
    """The smallest integer above, as the type of number that a size is."""
    return value if isinstance(value, torch.SymInt) else math.ceil(value)


def whole(value: Number) -> Number:
    """A number as an integer, cut off towards zero."""
    if is_symbol(value):
        return value if isinstance(value, torch.SymInt) else torch.sym_int(value)
    return int(value)


BINARY: dict[str, Callable[[Number, Number], Number]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": product,
    "Div": truncated_quotient,
    "Pow": operator.pow,
    "Mod": operator.mod,
    "Min": torch.sym_min,
    "Max": torch.sym_max,
    "Equal": lambda left, right: bool(left == right),
    "Greater": lambda left, right: bool(left > right),
    "GreaterOrEqual": lambda left, right: bool(left >= right),
    "Less": lambda left, right: bool(left < right),
    "LessOrEqual": lambda left, right: bool(left <= right),
    "And": lambda left, right: bool(left) and bool(right),
    "Or": lambda left, right: bool(left) or bool(right),
    "Xor": lambda left, right: bool(left) != bool(right),
}
NUMPY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Pow": np.power,
    "Min": np.minimum,
    "Max": np.maximum,
}
UNARY: dict[str, Callable[[Number], Number]] = {
    "Neg": operator.neg,
    "Abs": abs,
    "Not": lambda value: not value,
    "Floor": rounded_down,
    "Ceil": rounded_up,
}


def binary(operation: str, left: Array, right: Array) -> Array:
    """One of `BINARY` on arrays; without symbols it is computed in the arrays' own type."""
    symbolic = object in (left.dtype, right.dtype)
    if symbolic or operation not in NUMPY:
        integers = all(array.dtype == object or array.dtype.kind in "iub" for array in (left, right))
        if not symbolic and operation == "Div" and not integers:
            return np.asarray(left / right)
        return mapped(BINARY[operation], left, right)
    return np.asarray(NUMPY[operation](left, right))


def unary(operation: str, value: Array) -> Array:
    """One of `UNARY` on an array; the result has the array's type."""
    result = mapped(UNARY[operation], value)
    return result if object in (result.dtype, value.dtype) else result.astype(value.dtype)
