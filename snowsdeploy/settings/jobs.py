"""The settings of each command, put together from those of its stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from snowsdeploy.errors import UsageError
from snowsdeploy.settings.base import CommaList, Option, Repeated, Settings, one_of
from snowsdeploy.settings.calibration import CalibrationSettings
from snowsdeploy.settings.export import ExportSettings
from snowsdeploy.settings.model import ModelSettings
from snowsdeploy.settings.output import OutputSettings
from snowsdeploy.settings.prune import SELECTORS, PruneSettings
from snowsdeploy.settings.resources import ResourceSettings
from snowsdeploy.settings.validate import EvaluationSettings, MeasureSettings, ValidateSettings

_PANEL = "Validation and gates"
SOLVERS = ("none", "k0", "snows")


class PolicySettings(Settings):
    """By which limits a run is judged."""

    policy: Annotated[Path | None, Option(_PANEL, "FILE")] = Field(
        None, description="TOML file with the limits of the gates, in its table [gate]."
    )
    metric_goal: Annotated[Repeated, Option(_PANEL, "GOAL")] = Field(
        (), description="What a metric must reach, over the policy: 'map50 drop<=0.5', 'miou>=0.7'."
    )


class PlanJob(ModelSettings, CalibrationSettings, PruneSettings, ResourceSettings):
    """Predict what pruning costs."""


class PruneJob(PlanJob, OutputSettings):
    """Prune, and leave the result in a run directory."""


class MainJob(PruneJob, ExportSettings, MeasureSettings, PolicySettings):
    """Prune, export, validate, judge and report."""

    keep_dense_until_gate: Annotated[bool, Option(_PANEL)] = Field(
        False, description="After the solve, put the fewest layers back to dense that let the accuracy gates pass."
    )

    @model_validator(mode="after")
    def _judged(self) -> Self:
        if self.keep_dense_until_gate and not self.eval_data:
            raise UsageError(
                "--keep-dense-until-gate needs images to judge on",
                seen="--keep-dense-until-gate without --eval-data",
                allowed="both together",
                fix="name the images with --eval-data, or leave --keep-dense-until-gate out",
            )
        return self


class ValidateJob(ValidateSettings, PolicySettings):
    """Measure and judge the files of a run."""


class CompareJob(PlanJob, EvaluationSettings, PolicySettings):
    """Run the main job with each selector under each solver."""

    fixed: ClassVar[frozenset[str]] = frozenset({"selector", "selector_arg", "solver"})

    out: Annotated[Path, Option("Run", "FOLDER")] = Field(
        Path("comparison"), description="Folder of the comparison, with a run directory for each row."
    )
    selectors: Annotated[CommaList[Annotated[str, *one_of(SELECTORS)]], Option("Compared", "NAME,NAME")] = Field(
        ("magnitude", "wanda", "sparsegpt", "exchange"),
        min_length=1,
        description=f"Selectors to compare; a list of {', '.join(SELECTORS)}.",
    )
    solvers: Annotated[CommaList[Annotated[str, *one_of(SOLVERS)]], Option("Compared", "none,k0,snows")] = Field(
        SOLVERS, min_length=1, description="Solvers to compare on each selector's masks."
    )
