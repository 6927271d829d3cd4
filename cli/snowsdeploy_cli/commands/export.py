"""`snowsdeploy export`: the export stage alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snowsdeploy_cli import options as o

RunFolder = Annotated[Path, typer.Argument(help="Run directory that `prune` or `prune-export` left.")]


def command(
    run: RunFolder,
    *,
    opset: o.Opset = None,
    precision: o.Precision = None,
    keep_fp32: o.KeepFp32 = None,
    format: o.Format = None,  # noqa: A002 - the option's name
    uint8_input: o.Uint8Input = None,
    softmax: o.Softmax = None,
    top_k: o.TopK = None,
    quiet: o.Quiet = False,
) -> None:
    """Write the ONNX files of a pruning run, and check the layout in each."""
    given = o.parse_options({k: v for k, v in locals().items() if k not in ("run", "quiet")})

    from snowsdeploy.config import ExportSettings, build_config
    from snowsdeploy.pipeline import export
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.progress import ConsoleObserver
    from snowsdeploy_cli.render import print_files
    from snowsdeploy_exporters import FORMATS, OnnxExporter

    settings = build_config(ExportSettings, given)
    with ConsoleObserver(make_console(stderr=True), quiet=quiet) as observer:
        artifacts = export(run, OnnxExporter(settings.opset, settings.keep_fp32), settings, observer, FORMATS)
    print_files(make_console(), artifacts)
