"""Inputs of an ONNX file: their sizes, of which the file fixes some, and data and options the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snowsdeploy.errors import SourceError, UsageError
from snowsdeploy.models.onnx.importer import OnnxInput
from snowsdeploy.models.sizes import axis_name
from snowsdeploy.settings.model import ModelSettings
from snowsdeploy.values import DTYPES, DynamicAxis, InputInfo

_LEFT_ALONE = {"outputs": "--outputs", "output_names": "--output-names", "dynamic": "--dynamic"}


@dataclass(frozen=True)
class FileInputs:
    """What a program of the file takes.

    Attributes:
        inputs: At the sizes that it is pruned at.
        batch: The only number of items that the file takes; None for any.
        dynamic: Axes beside the batch that the file leaves open.
    """

    inputs: tuple[InputInfo, ...]
    batch: int | None
    dynamic: tuple[DynamicAxis, ...]


def require_own_ends(settings: ModelSettings) -> None:
    """Refuse options that would change what the user's file takes and gives.

    Raises:
        UsageError: There is one.
    """
    given = [option for name, option in _LEFT_ALONE.items() if getattr(settings, name)]
    if given:
        raise UsageError(
            "an ONNX file keeps its inputs, outputs and axes",
            seen=f"{', '.join(given)} beside {settings.model}",
            allowed="--input and --input-size, which say at which size an open axis is pruned",
            fix="leave it out; change the file itself, for example with onnx.utils.extract_model",
        )


def file_inputs(
    known: Sequence[OnnxInput],
    settings: ModelSettings,
    found: Sequence[InputInfo] | None,
    image: tuple[int, int, int] | None,
) -> FileInputs:
    """Sizes for every axis.

    Args:
        known: What the file says.
        settings: `--input`, `--input-size` and `--static-batch`.
        found: What the data hold, where they are arrays.
        image: Size of the data's images, where they have one.

    Raises:
        SourceError: The file's inputs do not have the batch as their first axis, or are of a type that is not taken.
        UsageError: Nothing says a size that the file leaves open, or an option contradicts the file.
    """
    given = {info.name: info for info in settings.inputs}
    if unknown := sorted(set(given) - {info.name for info in known}):
        raise UsageError(
            "--input names no input of the ONNX file",
            seen=", ".join(unknown),
            allowed=_listed(known),
            fix=f"write --input {known[0].name}=SHAPE",
        )
    sizes = {info.name: info.shape for info in found or ()}
    if len(known) == 1:
        options: list[tuple[int, ...] | None] = [settings.input_size, *sizes.values(), image]
        sizes = {known[0].name: next((size for size in options if size is not None), ())}
    sizes |= {name: info.shape for name, info in given.items()}
    inputs = tuple(_sized(info, sizes.get(info.name, ())) for info in known)
    return FileInputs(inputs, _batch(known, settings.static_batch), _open_axes(known, inputs))


def _sized(info: OnnxInput, wanted: tuple[int, ...]) -> InputInfo:
    """One input; sizes that the file fixes are its own."""
    if not info.shape:
        raise SourceError(
            "an input of the ONNX file has no axes, so no batch of items",
            seen=str(info),
            allowed="inputs whose first axis is the batch",
            fix="make it a constant of the file, or give it the batch as its first axis",
        )
    if info.dtype not in DTYPES:
        raise SourceError(
            "an input of the ONNX file is of a type that cannot be fed",
            seen=str(info),
            allowed=", ".join(DTYPES),
            fix="export the model with an input of one of these types, and a Cast behind it",
        )
    own = info.shape[1:]
    fits = len(wanted) == len(own) and all(
        size in (have, None) or isinstance(size, str) for size, have in zip(own, wanted, strict=True)
    )
    if wanted and not fits:
        raise UsageError(
            "the input of the ONNX file has another size",
            seen="x".join(map(str, wanted)),
            allowed=f"{info}, without the first axis",
            fix="give --input-size, --input and the data the file's own size",
        )
    if any(not isinstance(size, int) for size in own) and not wanted:
        raise UsageError(
            "the ONNX file leaves sizes of an input open, and nothing says at which it is to be pruned",
            seen=str(info),
            allowed=f"one size for each axis but the batch, such as {_example(info)}",
            fix=f"add --input-size C,H,W for an image, or --input {info.name}=SHAPE; the file stays open",
        )
    shape = wanted or tuple(size for size in own if isinstance(size, int))
    return InputInfo(name=info.name, shape=shape, dtype=info.dtype)


def _fits(own: Sequence[int | str | None], wanted: Sequence[int]) -> bool:
    """Whether sizes are those of the file where it fixes some."""
    if len(own) != len(wanted):
        return False
    return all(fixed == size for fixed, size in zip(own, wanted, strict=True) if isinstance(fixed, int))


def _batch(known: Sequence[OnnxInput], asked: int | None) -> int | None:
    """The first axis of all inputs."""
    fixed = {info.shape[0] for info in known if isinstance(info.shape[0], int)}
    if len(fixed) > 1:
        raise SourceError(
            "the inputs of the ONNX file do not all have the batch as their first axis",
            seen=_listed(known),
            allowed="the same number of items, or an open one, as the first axis of every input",
            fix="export it with the items of a batch along the first axis of every input",
        )
    own = next(iter(fixed), None)
    if own is not None and asked not in (None, own):
        raise UsageError(
            "the ONNX file fixes another number of items",
            seen=f"--static-batch {asked}",
            allowed=f"--static-batch {own}",
            fix="leave --static-batch out, or export the file with an open first axis",
        )
    return asked if own is None else own


def _open_axes(known: Sequence[OnnxInput], inputs: Sequence[InputInfo]) -> tuple[DynamicAxis, ...]:
    """Axes beside the batch, called as in the file where the name stands for one size."""
    places = [(info.name, axis, size) for info in known for axis, size in enumerate(info.shape) if axis]
    by_name = {info.name: info for info in inputs}
    meant: dict[str, set[int]] = {}
    for name, axis, size in places:
        if isinstance(size, str):
            meant.setdefault(size, set()).add(by_name[name].shape[axis - 1])
    return tuple(
        DynamicAxis(input=name, axis=axis, name=_given_name(size, meant) or axis_name(by_name[name], axis))
        for name, axis, size in places
        if not isinstance(size, int)
    )


def _given_name(size: int | str | None, meant: Mapping[str, set[int]]) -> str:
    """What the file calls an axis; empty where it says nothing, or calls axes of other sizes so too."""
    return size if isinstance(size, str) and len(meant[size]) == 1 else ""


def _example(info: OnnxInput) -> str:
    """Sizes that an input could have: its own, and 32 where it leaves one open."""
    return f"{info.name}={','.join(str(size) if isinstance(size, int) else '32' for size in info.shape[1:])}"


def _listed(known: Sequence[OnnxInput]) -> str:
    return ", ".join(map(str, known))
