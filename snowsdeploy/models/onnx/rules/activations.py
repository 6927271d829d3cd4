"""Activations."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from snowsdeploy.models.onnx.call import Call
from snowsdeploy.models.onnx.rules.registry import plain, tensor_rule

_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": F.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Softplus": F.softplus, "Softsign": F.softsign,
    "HardSwish": F.hardswish, "Mish": F.mish,
}  # fmt: skip
for _name, _plain in _PLAIN.items():
    plain(_name, _plain)

_SELU = (1.67326319217681884765625, 1.05070102214813232421875)


@tensor_rule("LeakyRelu")
def _leaky_relu(call: Call, value: Tensor) -> Tensor:
    return F.leaky_relu(value, call.get("alpha", 0.01))


@tensor_rule("PRelu")
def _prelu(call: Call, value: Tensor, slope: Tensor) -> Tensor:
    return torch.where(value < 0, value * slope, value)


@tensor_rule("ThresholdedRelu")
def _thresholded_relu(call: Call, value: Tensor) -> Tensor:
    return F.threshold(value, call.get("alpha", 1.0), 0.0)


@tensor_rule("Elu")
def _elu(call: Call, value: Tensor) -> Tensor:
    return F.elu(value, call.get("alpha", 1.0))


@tensor_rule("Celu")
def _celu(call: Call, value: Tensor) -> Tensor:
    return F.celu(value, call.get("alpha", 1.0))


@tensor_rule("Selu")
def _selu(call: Call, value: Tensor) -> Tensor:
    alpha, gamma = call.get("alpha", _SELU[0]), call.get("gamma", _SELU[1])
    return F.selu(value) if (alpha, gamma) == _SELU else F.elu(value, alpha) * gamma


@tensor_rule("Gelu")
def _gelu(call: Call, value: Tensor) -> Tensor:
    return F.gelu(value, approximate=call.get("approximate", "none"))


@tensor_rule("Swish")
def _swish(call: Call, value: Tensor) -> Tensor:
    alpha = call.get("alpha", 1.0)
    return F.silu(value) if alpha == 1.0 else value * torch.sigmoid(value * alpha)


@tensor_rule("HardSigmoid")
def _hard_sigmoid(call: Call, value: Tensor) -> Tensor:
    return torch.clamp(value * call.get("alpha", 0.2) + call.get("beta", 0.5), 0.0, 1.0)


@tensor_rule("Shrink")
def _shrink(call: Call, value: Tensor) -> Tensor:
    bias, limit = call.get("bias", 0.0), call.get("lambd", 0.5)
    return torch.where(value < -limit, value + bias, torch.where(value > limit, value - bias, 0.0))


@tensor_rule("Softmax")
def _softmax(call: Call, value: Tensor) -> Tensor:
    return _over_axis(call, value, logarithm=False)


@tensor_rule("LogSoftmax")
def _log_softmax(call: Call, value: Tensor) -> Tensor:
    return _over_axis(call, value, logarithm=True)


def _over_axis(call: Call, value: Tensor, *, logarithm: bool) -> Tensor:
    """Over one axis; before opset 13 over that axis and all after it."""
    function = F.log_softmax if logarithm else F.softmax
    if call.opset >= 13:
        return function(value, call.get("axis", -1))
    axis = call.get("axis", 1) % value.dim()
    if axis == value.dim() - 1:
        return function(value, axis)
    return function(value.flatten(axis), axis).reshape(value.shape)
