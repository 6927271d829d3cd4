"""Recurrent layers, by torch's own with the gates in torch's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snowsdeploy.models.onnx.call import Call, Result, Value
from snowsdeploy.models.onnx.rules.registry import RULES

# Gates as ONNX stacks them -> as torch does, and the activations that torch computes.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_NAMES = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_FUNCTIONS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "Tanh": torch.rnn_tanh,
    "Relu": torch.rnn_relu,
}


@dataclass(frozen=True)
class _Layer:
    """A layer as the file gives it; tensors as in ONNX's documentation of the operator."""

    kind: str
    function: str
    inputs: dict[str, Value]
    direction: str
    layout: int
    hidden: int


def _register(kind: str) -> None:
    def recurrent(call: Call, *values: Value) -> Result:
        layer = _Layer(
            kind,
            _checked(call, kind),
            dict(zip(_NAMES, values, strict=False)),
            call.get("direction", "forward"),
            call.get("layout", 0),
            call.get("hidden_size"),
        )
        for name in ("sequence_lens", "P"):
            if layer.inputs.get(name) is not None:
                raise call.refused(f"its input {name} is not supported", seen=name, allowed=f"no {name}")
        return _run(call, layer)

    RULES[kind] = recurrent


for _kind in _GATES:
    _register(_kind)


def _checked(call: Call, kind: str) -> str:
    """The name of torch's function.

    Raises:
        SourceError: It has none for these attributes.
    """
    for name in ("clip", "activation_alpha", "activation_beta"):
        if call.get(name):
            seen = f"{name}={call.get(name)}"
            raise call.refused(f"its attribute {name} is not supported", seen=seen, allowed=f"no {name}")
    call.only("input_forget", 0)
    if kind == "GRU" and not call.flag("linear_before_reset"):
        raise call.refused(
            "it resets before the product, which torch has not",
            seen="linear_before_reset=0",
            allowed="linear_before_reset=1",
        )
    names = [name.capitalize() for name in call.get("activations", _ACTIVATIONS[kind])]
    size = len(_ACTIVATIONS[kind])
    kinds = {tuple(names[at : at + size]) for at in range(0, len(names), size)}
    allowed = {_ACTIVATIONS[kind]} | ({("Relu",)} if kind == "RNN" else set())
    if len(kinds) != 1 or not kinds <= allowed:
        raise call.refused(
            "its activations are not supported", seen=names, allowed=" or ".join(map(str, sorted(allowed)))
        )
    return kind if kind != "RNN" else next(iter(kinds))[0]


def _run(call: Call, layer: _Layer) -> tuple[Tensor, ...]:
    value = call.tensor(layer.inputs["X"])
    value = value.transpose(0, 1) if layer.layout else value  # (time, batch, features)
    backward = layer.direction == "reverse"
    value = value.flip(0) if backward else value
    both = layer.direction == "bidirectional"
    count = 2 if both else 1
    states = [_state(call, layer, name, value, count) for name in ("initial_h", "initial_c")]
    start = states if layer.kind == "LSTM" else states[0]
    weights = _weights(call, layer, count)
    has_bias = layer.inputs.get("B") is not None
    output, *last = _FUNCTIONS[layer.function](value, start, weights, has_bias, 1, 0.0, False, both, False)
    output = output.flip(0) if backward else output
    steps, batch = output.shape[:2]
    if layer.layout:
        output = output.reshape(steps, batch, count, layer.hidden).permute(1, 0, 2, 3)
        return (output, *(state.transpose(0, 1) for state in last))
    return (output.reshape(steps, batch, count, layer.hidden).permute(0, 2, 1, 3), *last)


def _state(call: Call, layer: _Layer, name: str, value: Tensor, count: int) -> Tensor:
    """The state before the first step, (directions, batch, hidden)."""
    given = layer.inputs.get(name)
    if given is None:
        return value.new_zeros(count, value.shape[1], layer.hidden)
    state = call.tensor(given)
    return state.transpose(0, 1) if layer.layout else state


def _weights(call: Call, layer: _Layer, count: int) -> list[Tensor]:
    """Input weights, state weights and the two biases of each direction, in torch's order."""
    gates = _GATES[layer.kind]
    tensors = [call.tensor(layer.inputs["W"]), call.tensor(layer.inputs["R"])]
    if layer.inputs.get("B") is not None:
        tensors += list(call.tensor(layer.inputs["B"]).chunk(2, 1))
    return [_reordered(tensor[at], gates) for at in range(count) for tensor in tensors]


def _reordered(tensor: Tensor, gates: Sequence[int]) -> Tensor:
    parts = tensor.chunk(len(gates))
    return torch.cat([parts[at] for at in gates])
