"""Which weights stay. To add a selector: one file with its class here, one line in `settings.prune.SELECTORS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from snowsdeploy.errors import UsageError
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.threshold import mask_of
from snowsdeploy.selectors.base import AbstractLossSelector, AbstractScore, AbstractSelector, AbstractSweep, Choice
from snowsdeploy.selectors.base import Threshold as Threshold
from snowsdeploy.settings.base import unknown_name
from snowsdeploy.settings.prune import SELECTORS as _TABLE


def _class(target: str) -> type[AbstractSelector]:
    module, _, name = target.partition(":")
    found: type[AbstractSelector] = getattr(import_module(f"{__name__}.{module}"), name)
    return found


SELECTORS: dict[str, type[AbstractSelector]] = {name: _class(target) for name, target in _TABLE.items()}


def make_selector(name: str, settings: Mapping[str, Any]) -> AbstractSelector:
    """A selector with its settings.

    Raises:
        UsageError: There is no such selector or setting, or a value is not allowed.
    """
    if name not in SELECTORS:
        raise unknown_name("--selector is not known", name, SELECTORS)
    kind = SELECTORS[name]
    known = {field.name: f"{field.name}={field.default}" for field in fields(kind)}  # type: ignore[arg-type]  # all are dataclasses
    allowed = ", ".join(known.values()) or f"{name} has no settings"
    for key in settings:
        if key not in known:
            raise UsageError(
                f"--selector-arg is not a setting of {name}",
                seen=f"{key}={settings[key]}",
                allowed=allowed,
                fix=f"leave --selector-arg {key} out, or choose the --selector that has it",
            )
    try:
        return TypeAdapter(kind).validate_python(dict(settings))
    except ValidationError as error:
        seen = "; ".join(f"{e['loc'][0]}={e['input']}: {e['msg']}" for e in error.errors())
        raise UsageError(
            "--selector-arg has a value that is not allowed",
            seen=seen,
            allowed=f"values of the kind of the defaults: {allowed}",
            fix="change the value, or leave --selector-arg out for the default",
        ) from error


def select_mask(
    selector: AbstractSelector,
    weight: Tensor,
    moments: Callable[[], Tensor],
    pattern: Pattern,
    threshold: Threshold = "layer",
) -> Choice:
    """The mask of a layer by its inputs, with its groups where the hardware has them.

    Args:
        selector: A layer selector.
        weight: `[K, C, ...]`.
        moments: Computes `X^T X` in the order of `weight.flatten(1)`; not called where the selector does not read it.
        pattern: N:M along C, or unstructured.
        threshold: What unstructured scores are compared across.

    Returns:
        Mask and update in the weight's shape.
    """
    assert not isinstance(selector, AbstractLossSelector)
    if isinstance(selector, AbstractScore):
        gram = moments() if selector.reads_inputs else weight.new_empty(0)
        return Choice(mask_of(selector.score(weight.flatten(1), gram).view(weight.shape), pattern, threshold))
    assert isinstance(selector, AbstractSweep)
    gram = moments()
    columns = torch.arange(weight[0].numel(), device=weight.device).view(weight.shape[1:])
    order = columns.movedim(0, -1).flatten()  # the m consecutive channels at one kernel position become neighbours
    chosen = selector.choose(weight.flatten(1)[:, order], gram[order][:, order], pattern)
    place = torch.argsort(order)
    update = None if chosen.weight is None else chosen.weight[:, place].view(weight.shape)
    return Choice(chosen.mask[:, place].view(weight.shape), update)
