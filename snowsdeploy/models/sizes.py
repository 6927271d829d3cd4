"""Axes beside the batch that may vary: how they are traced, which a program has, and the program at one size of them.

Masks, windows and the order of channels are found on a program of one size, in which every axis but the batch is a
number; files and comparisons at other sizes are made of the program whose axes vary. Both have the same weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from snowsdeploy.batch import Batch, Inputs, tensors_of
from snowsdeploy.errors import GraphError, UsageError, first_line
from snowsdeploy.models.program import Program
from snowsdeploy.models.signature import input_values, random_batch
from snowsdeploy.settings.model import AxisText
from snowsdeploy.values import DynamicAxis, InputInfo, ModelSignature

_SHARES = ((0.5, 0.75, 0.25), (1.5, 1.25, 2.0))  # of the traced size: smaller, larger
_IMAGE_AXES = {"height": -2, "width": -1}


def wanted_axes(texts: Sequence[AxisText], inputs: Sequence[InputInfo]) -> tuple[DynamicAxis, ...]:
    """What the user says, by input and place.

    Raises:
        UsageError: There is no such axis, or the traced size is outside its range.
    """
    found = []
    for text in texts:
        info, axis = _placed(text, inputs)
        low, high = text.range or (None, None)
        size = info.shape[axis - 1]
        if text.range is not None and not text.range[0] <= size <= text.range[1]:
            raise UsageError(
                f"--dynamic {text.name} leaves out the size that the model is traced with",
                seen=f"{size}",
                allowed=f"{low}..{high}",
                fix="change the range, or --input-size",
            )
        name = text.name if text.axis is None else f"{info.name}_{axis}"
        found.append(DynamicAxis(input=info.name, axis=axis, name=name, smallest=low, largest=high))
    return tuple(found)


def _placed(text: AxisText, inputs: Sequence[InputInfo]) -> tuple[InputInfo, int]:
    if text.axis is None:
        image = next((info for info in inputs if len(info.shape) >= 3), None)
        if image is not None:
            return image, len(image.shape) + 1 + _IMAGE_AXES[text.name]
    else:
        named = next((info for info in inputs if info.name == text.name), None)
        if named is not None and text.axis <= len(named.shape):
            return named, text.axis
    raise UsageError(
        "--dynamic names no axis of the inputs",
        seen=text.name if text.axis is None else f"{text.name}:{text.axis}",
        allowed=", ".join(map(str, inputs)),
        fix="write height, width, or NAME:AXIS with the batch as axis 0",
    )


def traced_axes(axes: Sequence[DynamicAxis], name: str) -> dict[int, Any]:
    """What torch.export wants for the axes of an input."""
    return {
        axis.axis: Dim.DYNAMIC if axis.smallest is None else Dim.DYNAMIC(min=axis.smallest, max=axis.largest)
        for axis in axes
        if axis.input == name
    }


def found_axes(
    exported: ExportedProgram, inputs: Sequence[InputInfo], wanted: Sequence[DynamicAxis]
) -> tuple[DynamicAxis, ...]:
    """The axes of a program that vary, with the user's names where they have some.

    Raises:
        GraphError: One that should vary is fixed by the model.
    """
    values = input_values(exported)
    known = {(axis.input, axis.axis): axis for axis in wanted}
    found = []
    for info, value in zip(inputs, values, strict=True):
        for place, size in enumerate(value.shape):
            if place == 0 or isinstance(size, int):
                continue
            own = DynamicAxis(input=info.name, axis=place, name=axis_name(info, place))
            found.append(known.pop((info.name, place), own))
    if known:
        raise GraphError(
            "the model fixes an axis that should vary",
            seen=", ".join(f"{axis.name} of {axis.input}" for axis in known.values()),
            allowed="axes whose size the model takes from its input",
            fix="leave it out of --dynamic, or take out what needs this size, such as a table of positions",
        )
    return tuple(found)


def axis_name(info: InputInfo, place: int) -> str:
    """What an axis is called that has no name: height and width of an image."""
    names = {len(info.shape) - 1: "height", len(info.shape): "width"} if len(info.shape) == 3 else {}
    return names.get(place, f"{info.name}_{place}")


def at_one_size(exported: ExportedProgram, inputs: Sequence[InputInfo], batch: int | None) -> ExportedProgram:
    """The program with every axis but the batch fixed; weights have the same names.

    Args:
        exported: With axes that vary.
        inputs: The sizes.
        batch: The only number of items; None for any.
    """
    given = iter(tensors_of(random_batch(inputs, batch or 2, 0)))
    user = exported.graph_signature.user_inputs
    spec = exported.call_spec.in_spec
    assert spec is not None
    args, kwargs = pytree.tree_unflatten([next(given) if isinstance(name, str) else name for name in user], spec)
    axes: dict[int, Any] = {} if batch else {0: Dim("batch", min=1)}
    shapes = pytree.tree_map(lambda leaf: dict(axes) if isinstance(leaf, Tensor) else None, (args, kwargs))
    module = exported.module(check_guards=False)
    names = list(inspect.signature(module.forward).parameters)
    dynamic = dict(zip(names, [*shapes[0], *shapes[1].values()], strict=True))
    return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic, strict=False)


def sized(inputs: Sequence[InputInfo], axes: Sequence[DynamicAxis], text: str) -> tuple[InputInfo, ...]:
    """The inputs with images of another size.

    Args:
        inputs: At the traced size.
        axes: That may vary.
        text: `HxW`; empty for the traced size.

    Raises:
        UsageError: Height or width may not be that.
    """
    if not text:
        return tuple(inputs)
    image = next((info for info in inputs if len(info.shape) >= 3), None)
    wanted = tuple(map(int, text.split("x")))
    allowed = {a.axis: a for a in axes if image is not None and a.input == image.name}
    places = () if image is None else tuple(zip((len(image.shape) - 1, len(image.shape)), wanted, strict=True))
    wrong = not places or image is None
    for place, size in places:
        axis = allowed.get(place)
        fixed = image is not None and size == image.shape[place - 1]
        inside = axis is not None and (axis.smallest or 1) <= size <= (axis.largest or size)
        wrong = wrong or not (fixed or inside)
    if wrong or image is None:
        ranges = [f"{a.name} {a.smallest}..{a.largest}" if a.smallest else a.name for a in axes]
        raise UsageError(
            "--latency-size is no size of the model's image",
            seen=text,
            allowed=", ".join(ranges) or f"only {', '.join(map(str, inputs))}",
            fix="let height and width vary with --dynamic height,width",
        )
    other = image.model_copy(update={"shape": (*image.shape[:-2], *wanted)})
    return tuple(other if info is image else info for info in inputs)


def other_sizes(program: Program) -> list[tuple[InputInfo, ...]]:
    """Sizes of the axes that vary at which outputs are compared: the ends of their ranges, or a smaller and a larger.

    Raises:
        GraphError: The model does not run at an end of a range, or at no other size.
    """
    signature = program.signature
    if not signature.dynamic:
        return []
    if any(axis.smallest is not None for axis in signature.dynamic):
        ends = [_scaled(signature, share) for share in (0.0, 2.0)]
        failures = [(inputs, _failure(program, inputs)) for inputs in ends]
        found = [inputs for inputs, failure in failures if not failure]
        if len(found) < len(ends):
            inputs, failure = next((inputs, failure) for inputs, failure in failures if failure)
            raise _refused(inputs, failure)
        return found
    found, failure = [], ""
    for shares in _SHARES:
        for share in shares:
            inputs = _scaled(signature, share)
            failure = _failure(program, inputs)
            if not failure:
                found.append(inputs)
                break
    if not found:
        raise _refused(_scaled(signature, _SHARES[1][-1]), failure)
    return found


def resampled(batch: Batch, inputs: Sequence[InputInfo]) -> Batch:
    """The items at other sizes, nearest neighbours along each axis: outputs of real data are of a usual size.

    Args:
        batch: Of one size.
        inputs: The other sizes, of the same axes.
    """
    made = {}
    for info, tensor in zip(inputs, tensors_of(batch), strict=True):
        for axis, size in enumerate(info.shape, 1):
            if tensor.shape[axis] != size:
                places = torch.arange(size) * tensor.shape[axis] // size
                tensor = tensor.index_select(axis, places)  # noqa: PLW2901 - axis by axis
        made[info.name] = tensor
    return Inputs(made) if len(made) > 1 else next(iter(made.values()))


def _scaled(signature: ModelSignature, share: float) -> tuple[InputInfo, ...]:
    """The inputs with the axes that vary so much smaller or larger, within their ranges."""
    axes = {(axis.input, axis.axis): axis for axis in signature.dynamic}
    made = []
    for info in signature.inputs:
        rows = ((axes.get((info.name, place)), size) for place, size in enumerate(info.shape, 1))
        shape = tuple(size if axis is None else _within(axis, size, share) for axis, size in rows)
        made.append(info.model_copy(update={"shape": shape}))
    return tuple(made)


def _within(axis: DynamicAxis, size: int, share: float) -> int:
    wanted = max(1, round(size * share))
    if axis.smallest is not None and axis.largest is not None:
        return axis.smallest if share < 1 else axis.largest
    return wanted


def _failure(program: Program, inputs: Sequence[InputInfo]) -> str:
    """Why the program does not run on inputs of these sizes; empty where it does."""
    try:
        program.run(random_batch(inputs, program.signature.batch or 2, 0))
    except Exception as error:  # torch raises many types where an operator does not fit a size
        return first_line(error)
    return ""


def _refused(inputs: Sequence[InputInfo], failure: str) -> GraphError:
    return GraphError(
        "the model does not run at another size",
        seen=f"{', '.join(map(str, inputs))}: {failure}",
        allowed="a model that runs at every size that --dynamic allows",
        fix="give --dynamic the range of sizes that it takes, as in height=224..512, or leave it out",
    )
