"""Normalisations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from snowsdeploy.models.onnx.call import Call
from snowsdeploy.models.onnx.rules.registry import tensor_rule


@tensor_rule("BatchNormalization")
def _batch_norm(call: Call, value: Tensor, *constants: Tensor) -> Tensor:
    scale, bias, mean, variance = constants
    call.only("training_mode", 0)
    return F.batch_norm(value, mean, variance, scale, bias, False, 0.0, call.get("epsilon", 1e-5))


@tensor_rule("InstanceNormalization")
def _instance_norm(call: Call, value: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    # The function under F.instance_norm, which refuses images of one pixel.
    epsilon = call.get("epsilon", 1e-5)
    return torch.instance_norm(value, scale, bias, None, None, True, 0.0, epsilon, False)


@tensor_rule("GroupNormalization")
def _group_norm(call: Call, value: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Before opset 21 scale and bias are of the groups, after it of the channels."""
    groups, channels = call.get("num_groups"), value.shape[1]
    if call.opset < 21:
        scale, bias = (given.repeat_interleave(channels // groups) for given in (scale, bias))
    return torch.group_norm(value, groups, scale, bias, call.get("epsilon", 1e-5))


@tensor_rule("LayerNormalization")
def _layer_norm(call: Call, value: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = call.get("axis", -1) % value.dim()
    shape, epsilon = value.shape[axis:], call.get("epsilon", 1e-5)
    if scale.shape == shape and (bias is None or bias.shape == shape):
        return F.layer_norm(value, shape, scale, bias, epsilon)
    result = F.layer_norm(value, shape, None, None, epsilon) * scale
    return result if bias is None else result + bias


@tensor_rule("RMSNormalization")
def _rms_norm(call: Call, value: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(call.get("axis", -1) % value.dim(), value.dim()))
    return value * torch.rsqrt(value.square().mean(axes, keepdim=True) + call.get("epsilon", 1e-5)) * scale


@tensor_rule("LpNormalization")
def _lp_norm(call: Call, value: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(value, call.get("p", 2), call.get("axis", -1), keepdim=True)
    return value / size


@tensor_rule("MeanVarianceNormalization")
def _mean_variance_norm(call: Call, value: Tensor) -> Tensor:
    axes = call.get("axes", [0, 2, 3])
    centred = value - value.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


@tensor_rule("LRN")
def _local_response_norm(call: Call, value: Tensor) -> Tensor:
    """The sum over neighbouring channels; torch's own has another neighbour where their number is even."""
    size = call.get("size")
    before = (size - 1) // 2
    squares = F.pad(value.square(), [0, 0] * (value.dim() - 2) + [before, size - 1 - before])
    total = sum((squares.narrow(1, at, value.shape[1]) for at in range(1, size)), squares.narrow(1, 0, value.shape[1]))
    scaled = total * (float(call.get("alpha", 1e-4)) / size) + float(call.get("bias", 1.0))
    response: Tensor = value / scaled.pow(float(call.get("beta", 0.75)))
    return response
