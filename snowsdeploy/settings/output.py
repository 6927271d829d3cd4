"""Where a run's results go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from snowsdeploy.settings.base import Option, Settings

_PANEL = "Run"


class OutputSettings(Settings):
    """Where a run's results go."""

    out: Annotated[Path, Option(_PANEL, "FOLDER")] = Field(
        description="Run directory: everything that the run leaves is written there."
    )
    force: Annotated[bool, Option(_PANEL)] = Field(False, description="Overwrite the results of an earlier run.")
    resume: Annotated[bool, Option(_PANEL)] = Field(
        False, description="Continue an interrupted run with the same settings."
    )
