"""A module -> a program of torch.export, by the ways that there are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from snowsdeploy.models.caches import attributes_kept
from snowsdeploy.models.outputs import plain_outputs
from snowsdeploy.models.signature import Call, input_values

FIXED_SIZE = ("Not all values of", "You marked")  # torch.export's line that says why a size cannot vary
HELD = "model"  # what a module is called inside the one that holds it


def names_taken(module: nn.Module) -> str:
    """Names of its submodules that a graph module has itself, such as `code`; empty where there are none."""
    empty = fx.GraphModule(nn.Module(), fx.Graph())
    return ", ".join(name for name, _ in module.named_children() if hasattr(empty, name))


def held(module: nn.Module) -> nn.Module:
    """A module with this one as its only part, and the same `forward`."""
    holder = nn.Module()
    holder.add_module(HELD, module)

    @functools.wraps(module.forward)
    def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the model takes and gives
        return module(*args, **kwargs)

    holder.forward = forward
    return holder.eval()


def export_module(module: nn.Module, call: Call, forget: Callable[[], bool]) -> ExportedProgram:
    """Run the module's Python once and record what it computes.

    Where `forward` makes a size a Python number, such as `len(x)`, the size would be a constant of the program. Strict
    tracing, which reads the bytecode in place of running it, keeps many of these as sizes, and is tried then.

    Args:
        module: In evaluation mode.
        call: What it is recorded with.
        forget: Deletes what earlier runs left in the module, and says whether there was anything.

    Raises:
        Exception: What torch.export raises where it runs the module, of many types.
    """
    try:
        return _without_caches(module, call, forget)
    except Exception as error:
        if not _fixes_a_size(error):
            raise
        try:
            return _strictly(module, call)
        except Exception as strict:  # as below
            if _fixes_a_size(strict):  # it names the line, which the first one does not know
                raise
            raise error from strict


def _without_caches(module: nn.Module, call: Call, forget: Callable[[], bool]) -> ExportedProgram:
    try:
        return _exported(module, call, strict=False)
    except Exception:  # torch.export raises many types, most of them private
        if not forget():
            raise
        return _exported(module, call, strict=False)


def _strictly(module: nn.Module, call: Call) -> ExportedProgram:
    """With the model's own `forward`, whose bytecode is read; with another around it where its outputs need that."""
    try:
        with attributes_kept(module):
            return torch.export.export(module, call.args, call.kwargs, dynamic_shapes=call.dynamic, strict=True)
    except Exception as error:  # of many types
        if _fixes_a_size(error):
            raise
        return _exported(module, call, strict=True)


def _exported(module: nn.Module, call: Call, *, strict: bool) -> ExportedProgram:
    with attributes_kept(module), plain_outputs(module):  # torch.export leaves tensors without values in caches
        return torch.export.export(module, call.args, call.kwargs, dynamic_shapes=call.dynamic, strict=strict)


def _fixes_a_size(error: Exception) -> bool:
    return any(line.strip(" -").startswith(FIXED_SIZE) for line in str(error).splitlines())


def decomposed(exported: ExportedProgram) -> ExportedProgram:
    """Functional, with convolutions and linear layers kept whole.

    torch.export cannot do that to a program whose sizes are multiples, such as `4*s18`; such a one is recorded again,
    from its own graph.
    """
    try:
        made: ExportedProgram = exported.run_decompositions({})
    except AssertionError:
        again = _recorded_again(exported)
        if again is None:
            raise
        made = again.run_decompositions({})
    return made


def _recorded_again(exported: ExportedProgram) -> ExportedProgram | None:
    """With a size of its own for each axis that varies; None where the inputs are not plain tensors."""
    values = input_values(exported)
    if not all(isinstance(value, torch.Tensor) for value in values):
        return None
    examples = [torch.zeros([_hint(size) for size in value.shape], dtype=value.dtype) for value in values]
    axes = [
        {
            place: Dim("batch", min=1) if place == 0 else Dim.AUTO
            for place, size in enumerate(value.shape)
            if not isinstance(size, int)
        }
        for value in values
    ]
    spec = exported.call_spec.in_spec
    assert spec is not None
    args, kwargs = pytree.tree_unflatten(examples, spec)
    dynamic, named = pytree.tree_unflatten(axes, spec)
    return torch.export.export(
        exported.module(check_guards=False), args, kwargs, dynamic_shapes=named or dynamic, strict=False
    )


def _hint(size: Any) -> int:  # noqa: ANN401 - a number, or torch's of an axis that varies
    return size if isinstance(size, int) else int(size.node.hint)
