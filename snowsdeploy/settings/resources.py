"""What the pruning stage may use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ByteSize, Field

from snowsdeploy.settings.base import Option, Settings

_PANEL = "Resources"


class ResourceSettings(Settings):
    """What the pruning stage may use."""

    device: Annotated[str, Option(_PANEL, "auto|cpu|cuda:N")] = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$",
        description="Where to solve; auto takes a GPU where PyTorch can use one.",
    )
    memory: Annotated[ByteSize | None, Option(_PANEL, "8GiB")] = Field(
        None, gt=0, description="Memory that the process may use on the device; without it most of what is free."
    )
    activations: Annotated[
        Literal["auto", "memory", "host", "half", "disk", "recompute"],
        Option(_PANEL, "auto|memory|host|disk|half|recompute"),
    ] = Field(
        "auto", description="Where activations lie between uses; auto keeps them as near to the device as they fit."
    )
