"""Arguments and options that belong to commands, not to a stage's settings; each is declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(help="Run directory that prune or prune-export left.", metavar="RUN")]
ReportFile = Annotated[Path, typer.Argument(help="A report.json, or its run directory.", metavar="REPORT")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WriteJson = Annotated[Path | None, typer.Option("--json", help="Write everything as JSON.", metavar="FILE")]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="TOML file with the limits of the gates.", metavar="FILE")
]
MovedData = Annotated[
    str | None,
    typer.Option("--data", help="Where the calibration images are now, if not where they were.", metavar="SOURCE"),
]
EngineLog = Annotated[
    Path | None,
    typer.Option("--engine-log", help="Verbose build log that TensorRT printed.", metavar="FILE"),
]
EngineLayers = Annotated[
    Path | None,
    typer.Option("--engine-layers", help="JSON of TensorRT's engine inspector (--exportLayerInfo).", metavar="FILE"),
]
