"""Where the model comes from, and how images enter it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from snowsdeploy.settings.base import Arguments, CommaList, Option, Settings, Texts, whole_number
from snowsdeploy.values import DTYPES, InputInfo

_PANEL, _INPUT = "Model", "Data"


def _size(value: Any) -> Any:  # noqa: ANN401 - whatever the user wrote
    """`"3,224,224"` and `"224x224"`, which has three channels."""
    if not isinstance(value, str):
        return value
    text = f"3,{value.replace('x', ',')}" if "x" in value else value
    try:
        size = tuple(whole_number(part) for part in text.split(","))
    except ValueError:
        size = ()
    if len(size) != 3:
        raise ValueError("C,H,W like 3,224,224, or HxW like 224x224")
    return size


def read_shape(name: str, text: str) -> InputInfo:
    """`3,224,224`, `3x224x224` or `128:int64`; an empty shape is one number for each item.

    Raises:
        ValueError: The text is something else.
    """
    sizes, colon, dtype = text.partition(":")
    try:
        shape = tuple(whole_number(part) for part in sizes.replace("x", ",").split(",")) if sizes else ()
    except ValueError:
        shape = (0,)
    if not all(size >= 1 for size in shape) or (colon and dtype not in DTYPES):
        raise ValueError(f"NAME=SHAPE like image=3,224,224 or ids=128:int64; types are {', '.join(DTYPES)}")
    return InputInfo(name=name, shape=shape, dtype=dtype or "float32")


_AXIS = re.compile(r"(height|width|(\w+):([0-9]{1,9}))(?:=([0-9]{1,9})\.\.([0-9]{1,9}))?")


@dataclass(frozen=True)
class AxisText:
    """What the user says of an axis that may vary.

    Attributes:
        name: `height`, `width`, or the input's.
        axis: Its place, where an input is named.
        range: Smallest and largest size.
    """

    name: str
    axis: int | None
    range: tuple[int, int] | None


def read_axis(text: str) -> AxisText:
    """`height`, `width=224..512` or `audio:2`.

    Raises:
        ValueError: The text is something else.
    """
    found = _AXIS.fullmatch(text.strip())
    low, high = (found[4], found[5]) if found else (None, None)
    backwards = low is not None and high is not None and not 1 <= int(low) < int(high)
    if found is None or backwards or (found[3] is not None and int(found[3]) < 1):
        raise ValueError("height, width or NAME:AXIS with AXIS from 1 on, and a range as in height=224..512")
    limits = None if low is None or high is None else (int(low), int(high))
    return AxisText(found[2] or found[1], int(found[3]) if found[3] else None, limits)


Side = Annotated[int, Field(ge=1)]
_SIZE = str | tuple[Side, Side, Side] | None


class ModelSettings(Settings):
    """Where the model comes from, and how images enter it."""

    model: Annotated[str, Option(_PANEL, "MODEL")] = Field(
        description="A checkpoint, a .pt2 program, an .onnx file, timm:NAME or package.module:factory."
    )
    arch: Annotated[str | None, Option(_PANEL, "NAME")] = Field(
        None, description="Architecture of a checkpoint: a timm name or package.module:factory."
    )
    model_arg: Annotated[Arguments, Option(_PANEL, "KEY=VALUE")] = Field(
        default_factory=dict, description="Keyword argument of the architecture; may be repeated."
    )
    state_key: Annotated[str | None, Option(_PANEL, "KEY")] = Field(
        None, description="Which state dict of a checkpoint to load, such as model_ema.module, where several fit."
    )
    strip_prefix: Annotated[str | None, Option(_PANEL, "PREFIX")] = Field(
        None, description="What a checkpoint's names have before those of the architecture, where several fit."
    )
    allow_pickle: Annotated[bool, Option(_PANEL)] = Field(
        False, description="Load files that can run code when they are read; only for files that you trust."
    )
    mean: Annotated[CommaList[float] | None, Option(_INPUT, "R,G,B")] = Field(
        None, description="Mean of each channel on pixels from 0 to 1, such as 0.485,0.456,0.406."
    )
    std: Annotated[CommaList[float] | None, Option(_INPUT, "R,G,B")] = Field(
        None, description="Standard deviation of each channel on pixels from 0 to 1."
    )
    input_size: Annotated[
        tuple[Side, Side, Side] | None, BeforeValidator(_size, json_schema_input_type=_SIZE), Option(_INPUT, "C,H,W")
    ] = Field(None, description="Size of the model's image; 224x224 means 3,224,224.")
    input: Annotated[Texts, Option(_INPUT, "NAME=SHAPE")] = Field(
        default_factory=dict,
        description="An input by its name, without the batch: image=3,224,224 or ids=128:int64; may be repeated.",
    )
    static_batch: Annotated[int | None, Option(_INPUT, "N")] = Field(
        None, ge=1, description="The only number of items the model takes at once; for models that fix or mix them."
    )
    dynamic: Annotated[CommaList[str], Option(_INPUT, "AXIS,AXIS")] = Field(
        (),
        description="Axes that may vary: height, width, or NAME:AXIS, counted from the batch, which is 0; with a range "
        "as in height=224..512.",
    )
    outputs: Annotated[CommaList[str], Option(_INPUT, "NAME,NAME")] = Field(
        (), description="Outputs to keep, by name and in this order, all without it; the first is judged."
    )
    output_names: Annotated[CommaList[str], Option(_INPUT, "NAME,NAME")] = Field(
        (), description="Names of the outputs in the ONNX file, in place of the model's own."
    )
    interpolation: Annotated[Literal["bicubic", "bilinear", "nearest"] | None, Option(_INPUT)] = Field(
        None, description="Filter that resizes image files."
    )
    crop_pct: Annotated[float | None, Option(_INPUT, "SHARE")] = Field(
        None, gt=0, le=1, description="Share of the resized image that the centre crop keeps."
    )

    @field_validator("input")
    @classmethod
    def _shapes(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            read_shape(name, text)
        return value

    @field_validator("dynamic")
    @classmethod
    def _axes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            read_axis(text)
        return value

    @property
    def inputs(self) -> tuple[InputInfo, ...]:
        """What `--input` says, in order."""
        return tuple(read_shape(name, text) for name, text in self.input.items())

    @field_validator("std")
    @classmethod
    def _positive(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and not all(v > 0 for v in value):
            raise ValueError("every value must be above 0")
        return value
