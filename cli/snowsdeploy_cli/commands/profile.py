"""`snowsdeploy profile`: latency of ONNX files side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snowsdeploy.settings.profile import ProfileSettings
from snowsdeploy_cli.session import observed
from snowsdeploy_cli.signature import Quiet, Typed, options_of

Files = Annotated[list[Path], typer.Argument(help="ONNX files; ratios are against the first.")]
Export = Annotated[Path | None, typer.Option("--export", help="Write the figures as JSON.", metavar="FILE")]


@options_of(ProfileSettings)
def command(typed: Typed, files: Files, *, export: Export = None, quiet: Quiet = False) -> None:
    """Time ONNX files side by side, and show where the time goes and what sparsity could gain at most."""
    settings = typed.settings(ProfileSettings)
    from snowsdeploy.files import write_text_atomic
    from snowsdeploy.measure.profile import profile
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.render import print_profile

    with observed(quiet=quiet) as observer:
        figures = profile(files, settings, observer=observer)
    if export:
        write_text_atomic(export, figures.model_dump_json(indent=2) + "\n")
    print_profile(make_console(), figures)
