"""Products of matrices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from snowsdeploy.models.onnx.call import Call, Held, Result, Value
from snowsdeploy.models.onnx.layouts import TRANSPOSED
from snowsdeploy.models.onnx.rules.registry import rule


@rule("Einsum")
def _einsum(call: Call, *values: Value) -> Result:
    return torch.einsum(call.get("equation"), *map(call.tensor, values))


@rule("MatMul")
def _matmul(call: Call, left: Value, right: Value) -> Result:
    return product(call, call.tensor(left), right)


@rule("Gemm")
def _gemm(call: Call, left: Value, right: Value, bias: Value = None) -> Result:
    rows = call.tensor(left)
    rows = rows.t() if call.flag("transA") else rows
    scale, bias_scale = float(call.get("alpha", 1.0)), float(call.get("beta", 1.0))
    offset = call.optional(bias)
    if scale == 1.0 and bias_scale == 1.0 and (offset is None or offset.dim() == 1):
        return product(call, rows, right, offset, transposed=call.flag("transB"))
    result = product(call, rows, right, transposed=call.flag("transB")) * scale
    return result if offset is None else result + offset * bias_scale


def product(call: Call, left: Tensor, right: Value, bias: Tensor | None = None, *, transposed: bool = False) -> Tensor:
    """A product of matrices; one linear layer where the right one is a constant matrix.

    Args:
        call: The node.
        left: (..., inputs).
        right: (..., inputs, outputs).
        bias: (outputs,).
        transposed: Whether the right one is (outputs, inputs).
    """
    if isinstance(right, Held) and right.rank == 2:
        return linear(left, call.tensor(right, () if transposed else TRANSPOSED), bias)
    matrix = call.tensor(right)
    result = torch.matmul(left, matrix.t() if transposed else matrix)
    return result if bias is None else result + bias
