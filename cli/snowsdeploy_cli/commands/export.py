"""`snowsdeploy export`: the export stage alone."""

from __future__ import annotations

from snowsdeploy.settings.export import ExportSettings
from snowsdeploy_cli.arguments import MovedData, RunFolder
from snowsdeploy_cli.session import observed, require_prune
from snowsdeploy_cli.signature import Quiet, Typed, options_of


@options_of(ExportSettings)
def command(typed: Typed, run: RunFolder, *, data: MovedData = None, quiet: Quiet = False) -> None:
    """Write the ONNX files of a pruning run, and check the layout in each."""
    typed.settings(ExportSettings)
    require_prune("export")
    from snowsdeploy.stages.later import run_export
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.render import print_files
    from snowsdeploy_exporters import FORMATS, OnnxExporter

    with observed(quiet=quiet) as observer:
        files = run_export(
            run,
            typed.values,
            lambda settings: OnnxExporter(settings.opset, settings.keep_fp32),
            writers=FORMATS,
            data=data,
            file=typed.file,
            observer=observer,
            command=typed.command,
        )
    print_files(make_console(), files)
