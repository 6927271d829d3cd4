"""`snowsdeploy export`: the export stage alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snowsdeploy_cli import options as o

RunFolder = Annotated[Path, typer.Argument(help="Run directory that `prune` or `prune-export` left.")]


def command(run: RunFolder, opset: o.Opset = None, quiet: o.Quiet = False) -> None:
    """Write dense.onnx and model.onnx from a pruning run, and check the layout in the file."""
    from snowsdeploy.pipeline import export
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.progress import ConsoleObserver
    from snowsdeploy_cli.render import print_files
    from snowsdeploy_exporters import OnnxExporter

    with ConsoleObserver(make_console(stderr=True), quiet=quiet) as observer:
        artifacts = export(run, OnnxExporter(opset or OnnxExporter.opset), observer)
    print_files(make_console(), [artifacts.dense, artifacts.sparse])
