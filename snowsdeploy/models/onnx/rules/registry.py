"""The table of rules, and how a function becomes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from snowsdeploy.models.onnx.call import Call, Result, Value

Rule = Callable[..., Result]
RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a function that is given a node's `Call` and its inputs, None for those that are left out."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def tensor_rule(*operators: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a function that wants all inputs as tensors."""

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def on_tensors(call: Call, *values: Value) -> Result:
            return function(call, *(call.optional(value) for value in values))

        RULES.update(dict.fromkeys(operators, on_tensors))
        return function

    return register


def plain(operator: str, function: Callable[[Tensor], Any]) -> None:
    """Register a function of one tensor that needs no attribute."""

    def on_tensor(call: Call, value: Value) -> Result:
        result: Tensor = function(call.tensor(value))
        return result

    RULES[operator] = on_tensor
