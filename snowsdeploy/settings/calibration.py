"""Which images calibrate."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from snowsdeploy.settings.base import Option, Settings

_PANEL = "Data"


class CalibrationSettings(Settings):
    """Which images calibrate."""

    data: Annotated[str, Option(_PANEL, "SOURCE")] = Field(
        description="Calibration images: a folder, an .npz file or a timm data set; 'x.npz[0::2]' takes every second."
    )
    samples: Annotated[int, Option(_PANEL, "N")] = Field(
        1024, ge=1, description="How many calibration images to draw at random."
    )
