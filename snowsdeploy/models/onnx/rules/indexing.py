"""Elements picked by indices, and put at indices."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from snowsdeploy.models.onnx import host
from snowsdeploy.models.onnx.call import Call, Result, Value
from snowsdeploy.models.onnx.host import Number
from snowsdeploy.models.onnx.rules.registry import rule
from snowsdeploy.models.onnx.rules.shapes import known_nonnegative

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def positions(call: Call, value: Value, size: Number) -> Tensor:
    """Indices as torch takes them: none below zero."""
    if isinstance(value, np.ndarray):
        value = host.mapped(lambda index: index + size if index < 0 else index, value)
        return call.tensor(value)
    indices = call.tensor(value).to(torch.int64)
    return indices if known_nonnegative(value) else torch.where(indices < 0, indices + size, indices)


@rule("Gather")
def _gather(call: Call, value: Value, indices: Value) -> Result:
    axis = call.get("axis", 0)
    if isinstance(value, np.ndarray) and isinstance(indices, np.ndarray):
        return host.retyped(np.asarray(np.take(value, indices.astype(np.int64), axis)))
    tensor = call.tensor(value)
    axis = axis % tensor.dim()
    if isinstance(indices, np.ndarray) and indices.ndim == 0:
        return tensor.select(axis, indices.item())
    picked = positions(call, indices, tensor.shape[axis])
    if axis == 0 and tensor.dim() == 2 and tensor.is_floating_point():
        return F.embedding(picked, tensor)
    result = tensor.index_select(axis, picked.reshape(-1))
    return (
        result if picked.dim() == 1 else result.reshape(*tensor.shape[:axis], *picked.shape, *tensor.shape[axis + 1 :])
    )


@rule("GatherElements")
def _gather_elements(call: Call, value: Value, indices: Value) -> Result:
    tensor, axis = call.tensor(value), call.get("axis", 0)
    return torch.gather(tensor, axis, positions(call, indices, tensor.shape[axis]))


@rule("GatherND")
def _gather_nd(call: Call, value: Value, indices: Value) -> Result:
    tensor, picked, batch = call.tensor(value), call.tensor(indices).to(torch.int64), call.get("batch_dims", 0)
    rows: list[Tensor] = []
    for axis in range(batch):
        shape = [1] * (picked.dim() - 1)
        shape[axis] = -1
        rows.append(torch.arange(tensor.shape[axis], device=tensor.device).reshape(shape))
    return tensor[(*rows, *picked.unbind(-1))]


@rule("ScatterND")
def _scatter_nd(call: Call, value: Value, indices: Value, updates: Value) -> Result:
    call.only("reduction", "none", "add")
    tensor, new, places = call.tensor(value), call.tensor(updates), call.tensor(indices).to(torch.int64).unbind(-1)
    return tensor.index_put(places, new, accumulate=call.get("reduction") == "add")


@rule("ScatterElements", "Scatter")
def _scatter_elements(call: Call, value: Value, indices: Value, updates: Value) -> Result:
    tensor, axis, reduction = call.tensor(value), call.get("axis", 0), call.get("reduction", "none")
    places, new = positions(call, indices, tensor.shape[axis]), call.tensor(updates)
    if reduction == "none":
        return tensor.scatter(axis, places, new)
    return tensor.scatter_reduce(axis, places, new, _REDUCTIONS[reduction])


@rule("OneHot")
def _one_hot(call: Call, indices: Value, depth: Value, values: Value) -> Result:
    count, (off, on) = host.whole(call.number(depth, "depth")), call.numbers(values, "values")
    picked = call.tensor(indices).to(torch.int64)
    axis = call.get("axis", -1)
    axis = axis + picked.dim() + 1 if axis < 0 else axis
    classes = torch.arange(count, device=call.device).reshape(-1, *[1] * (picked.dim() - axis))
    hits = torch.where(picked < 0, picked + count, picked).unsqueeze(axis) == classes
    kind = torch.float32 if isinstance(off, float) else torch.int64
    return torch.where(hits, torch.tensor(on, dtype=kind), torch.tensor(off, dtype=kind))
