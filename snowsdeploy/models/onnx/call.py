"""What a rule is given of the node that it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snowsdeploy.errors import SourceError
from snowsdeploy.models.onnx.host import Number
from snowsdeploy.models.onnx.layouts import Array, Steps, arranged_tensor, joined

FLOATS = (torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Held:
    """A constant that is a parameter or buffer of the module.

    Attributes:
        path: Where the module holds it.
        steps: From what the module holds to what the graph means.
        rank: Number of axes after the steps.
        nonnegative: Whether it holds integers none of which is below zero.
    """

    path: str
    steps: Steps
    rank: int
    nonnegative: bool = False


Value = Tensor | Array | Held | None
Result = Value | tuple[Value, ...]


@dataclass(frozen=True)
class Call:
    """One node while the graph runs.

    Attributes:
        op: The operator's name.
        node: The node's name, or that of its first output.
        opset: Version of the operators.
        attributes: Decoded: texts are str, tensors are arrays.
        outputs: Names of the results that are needed; empty ones are not.
        module: Holds the parameters and buffers.
        device: Where the inputs are.
    """

    op: str
    node: str
    opset: int
    attributes: Mapping[str, Any]
    outputs: tuple[str, ...]
    module: nn.Module
    device: torch.device

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - attributes have many types
        """An attribute's value."""
        return self.attributes.get(name, default)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """An attribute that is 0 or 1."""
        return bool(self.attributes.get(name, default))

    def tensor(self, value: Value, steps: Steps = ()) -> Tensor:
        """A value as a tensor.

        Args:
            value: Anything but None.
            steps: Done to a constant of the module before it is used.

        Raises:
            SourceError: The node lacks this input.
        """
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Held):
            folder, _, name = value.path.rpartition(".")
            held: Tensor = getattr(self.module.get_submodule(folder), name)
            return arranged_tensor(held, joined((*value.steps, *steps)))
        if value is None:
            raise self.refused("an input is missing", seen="no value", allowed="every input that the operator requires")
        if value.dtype == object:
            numbers = [torch.scalar_tensor(number, device=self.device) for number in value.reshape(-1).tolist()]
            numbers = [
                number if isinstance(e, float | torch.SymFloat) else number.to(torch.int64)
                for number, e in zip(numbers, value.reshape(-1).tolist(), strict=True)
            ]
            return torch.stack(numbers).reshape(value.shape)
        array = value.astype(np.float32) if value.dtype.name in ("float16", "bfloat16", "float64") else value
        return torch.tensor(array.tolist(), dtype=getattr(torch, array.dtype.name), device=self.device)

    def optional(self, value: Value) -> Tensor | None:
        """A value as a tensor, or None."""
        return None if value is None else self.tensor(value)

    def operand(self, value: Value, other: Value) -> Tensor | Number:
        """A value that meets another in arithmetic: a plain number where that is the same."""
        rank = other.dim() if isinstance(other, Tensor) else other.rank if isinstance(other, Held) else -1
        if isinstance(value, np.ndarray) and value.size == 1 and value.ndim <= rank:
            return value.reshape(-1).tolist()[0]
        return self.tensor(value)

    def numbers(self, value: Value, what: str) -> list[Number]:
        """The elements of a value that must be known without looking at data.

        Raises:
            SourceError: It is data.
        """
        if not isinstance(value, np.ndarray):
            raise self.refused(f"its {what} depends on data", seen=what, allowed="constants, and sizes of tensors")
        return list(value.reshape(-1).tolist())

    def number(self, value: Value, what: str) -> Number:
        """The one element of a value that must be known without looking at data.

        Raises:
            SourceError: It is data, or not one element.
        """
        numbers = self.numbers(value, what)
        if len(numbers) != 1:
            raise self.refused(f"its {what} is not one number", seen=f"{len(numbers)} numbers", allowed="one")
        return numbers[0]

    def axes(self, value: Value = None, name: str = "axes") -> list[int]:
        """Axes that are an attribute in older opsets and an input in newer ones; empty where neither is there."""
        if name in self.attributes:
            found = self.attributes[name]
            return [int(axis) for axis in (found if isinstance(found, list | tuple) else [found])]
        return [] if value is None else [int(axis) for axis in self.numbers(value, name)]

    def only(self, name: str, *allowed: object) -> None:
        """Refuse an attribute that is present and has another value than these.

        Raises:
            SourceError: It has.
        """
        if name in self.attributes and self.attributes[name] not in allowed:
            raise self.refused(
                f"its attribute {name} is not supported",
                seen=f"{name}={self.attributes[name]}",
                allowed=" or ".join(f"{name}={value}" for value in allowed),
            )

    def refused(self, what: str, *, seen: object, allowed: str) -> SourceError:
        """The error for a node that cannot be computed as the file asks."""
        return SourceError(
            f"the ONNX node {self.node} ({self.op}) cannot be imported: {what}",
            seen=seen,
            allowed=allowed,
            fix="export the model to ONNX without this, or prune the PyTorch checkpoint that it came from",
        )
