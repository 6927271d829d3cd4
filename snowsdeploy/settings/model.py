"""Where the model comes from, and how images enter it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from snowsdeploy.settings.base import Arguments, CommaList, Option, Settings

_PANEL, _INPUT = "Model", "Data"


def _size(value: Any) -> Any:  # noqa: ANN401 - whatever the user wrote
    """`"3,224,224"` and `"224x224"`, which has three channels."""
    if not isinstance(value, str):
        return value
    text = f"3,{value.replace('x', ',')}" if "x" in value else value
    try:
        size = tuple(int(part) for part in text.split(","))
    except ValueError:
        size = ()
    if len(size) != 3:
        raise ValueError("C,H,W like 3,224,224, or HxW like 224x224")
    return size


Side = Annotated[int, Field(ge=1)]
_SIZE = str | tuple[Side, Side, Side] | None


class ModelSettings(Settings):
    """Where the model comes from, and how images enter it."""

    model: Annotated[str, Option(_PANEL, "MODEL")] = Field(
        description="A checkpoint, a .pt2 program, timm:NAME or package.module:factory."
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
    ] = Field(None, description="Size of the model's input; 224x224 means 3,224,224.")
    interpolation: Annotated[Literal["bicubic", "bilinear", "nearest"] | None, Option(_INPUT)] = Field(
        None, description="Filter that resizes image files."
    )
    crop_pct: Annotated[float | None, Option(_INPUT, "SHARE")] = Field(
        None, gt=0, le=1, description="Share of the resized image that the centre crop keeps."
    )

    @field_validator("std")
    @classmethod
    def _positive(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and not all(v > 0 for v in value):
            raise ValueError("every value must be above 0")
        return value
