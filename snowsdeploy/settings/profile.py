"""What the profile command times."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.settings.base import CommaList, Option, Texts, whole_number
from snowsdeploy.settings.runtime import RuntimeSettings
from snowsdeploy.settings.validate import Count

_PANEL = "Profile"


class ProfileSettings(RuntimeSettings):
    """What the profile command times."""

    batch: Annotated[CommaList[Count], Option(_PANEL, "N,N")] = Field(
        (1,), description="Batch sizes to time; a list, or repeated."
    )
    axis: Annotated[Texts, Option(_PANEL, "NAME=N")] = Field(
        default_factory=dict,
        description="Size of an axis that varies beside the batch: height=224; may be repeated.",
    )
    runs: Annotated[int, Option(_PANEL, "N")] = Field(100, ge=10, description="Timed calls of each file and batch.")
    pattern: Annotated[str, Option(_PANEL, "N:M")] = Field(
        "2:4", description="Layers that hold this pattern count as pruned."
    )
    seed: Annotated[int, Option(_PANEL, "N")] = Field(0, ge=0, description="Seed of the order of calls and the inputs.")
    sparsity_off: Annotated[bool, Option(_PANEL)] = Field(
        False, description="Time each file once more with sparse kernels forbidden."
    )
    cuda_graph: Annotated[bool, Option(_PANEL)] = Field(False, description="Capture each file as one CUDA graph.")
    memory: Annotated[bool, Option(_PANEL)] = Field(
        False, description="Measure the peak memory of each file in a process of its own."
    )
    trace: Annotated[Path | None, Option(_PANEL, "FILE")] = Field(
        None, description="Write a Chrome trace of the last file."
    )

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, value: str) -> str:
        return str(Pattern.parse(value))

    @property
    def axes(self) -> dict[str, int]:
        """Sizes by name."""
        return {name: whole_number(size) for name, size in self.axis.items()}

    @field_validator("axis")
    @classmethod
    def _axis(cls, value: dict[str, str]) -> dict[str, str]:
        if not all(size.isascii() and size.isdecimal() and whole_number(size) >= 1 for size in value.values()):
            raise ValueError("a name and a whole number above zero, as height=224")
        return value
