"""What is measured on the exported files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from snowsdeploy.settings.base import CommaList, Option, Repeated, Settings
from snowsdeploy.settings.runtime import RuntimeSettings

_PANEL, _DATA = "Validation and gates", "Data"
TaskName = Literal["auto", "classify", "segment", "restore", "embed", "any"]
Count = Annotated[int, Field(ge=1)]
Size = Annotated[str, Field(pattern=r"^[1-9]\d*x[1-9]\d*$")]
Capability = Literal["7.5", "8.0", "8.6", "8.9", "12.0"]


class EvaluationSettings(Settings):
    """What accuracy is measured on, and in which terms."""

    eval_data: Annotated[str | None, Option(_DATA, "SOURCE")] = Field(
        None, description="Evaluation images; written in the same way as --data."
    )
    eval_batch: Annotated[int, Option(_PANEL, "N")] = Field(
        100, ge=1, description="Images in a call when accuracy is measured."
    )
    task: Annotated[TaskName, Option(_PANEL)] = Field(
        "auto", description="What the first output means; auto looks at its shape and at the targets."
    )
    ignore_index: Annotated[int | None, Option(_PANEL, "N")] = Field(
        None, description="Value of a mask's pixels that do not count, for --task segment."
    )
    metric: Annotated[Repeated, Option(_PANEL, "MODULE:FUNCTION")] = Field(
        (),
        description="Your own metric, called as function(predict, data) for each file, or one of torchmetrics, such as "
        "torchmetrics.classification:MulticlassF1Score(num_classes=10).",
    )


class MeasureSettings(EvaluationSettings, RuntimeSettings):
    """What is measured on the exported files."""

    compile_for: Annotated[CommaList[Capability], Option(_PANEL, "8.6,8.9,12.0")] = Field(
        (), description="Compute capabilities for which TensorRT-RTX must accept the sparse files; needs no GPU."
    )
    latency_batch: Annotated[CommaList[Count], Option(_PANEL, "N,N")] = Field(
        (1, 8), description="Batch sizes to time; a list, or repeated."
    )
    latency_size: Annotated[CommaList[Size], Option(_PANEL, "HxW,HxW")] = Field(
        (), description="Sizes to time and to compare outputs at, of a model with --dynamic height,width."
    )
    latency_runs: Annotated[int, Option(_PANEL, "N")] = Field(
        50, ge=5, description="Timed calls of each file and batch size."
    )


class ValidateSettings(MeasureSettings):
    """The validation stage alone, which also takes what is known of engines that were built from the files."""

    engine_log: Annotated[Repeated, Option(_PANEL, "[PRECISION=]FILE")] = Field(
        (), description="Verbose build log that TensorRT printed for a sparse file."
    )
    engine_layers: Annotated[Repeated, Option(_PANEL, "[PRECISION=]FILE")] = Field(
        (), description="JSON file of TensorRT's engine inspector (--exportLayerInfo)."
    )
