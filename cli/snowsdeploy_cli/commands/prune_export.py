"""`snowsdeploy prune-export`: the main job."""

from __future__ import annotations

import typer

from snowsdeploy.settings.jobs import MainJob
from snowsdeploy_cli.session import require_prune, shared
from snowsdeploy_cli.signature import Quiet, Typed, options_of


@options_of(MainJob)
def command(typed: Typed, *, quiet: Quiet = False) -> None:
    """Load, prune, solve, export, validate, judge, report: the main job."""
    settings = typed.settings(MainJob)
    require_prune("prune-export")
    from snowsdeploy.stages.job import run_main_job, version_warnings
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.outcome import exit_code
    from snowsdeploy_cli.processes import launch
    from snowsdeploy_cli.render import print_summary
    from snowsdeploy_exporters import FORMATS, OnnxExporter

    policy = typed.policy()
    with shared(settings.device, quiet=quiet) as (observer, _):
        for text in version_warnings(typed.file):
            observer.warn(text)
        report = run_main_job(
            settings,
            OnnxExporter(settings.opset, settings.keep_fp32),
            writers=FORMATS,
            policy=policy,
            observer=observer,
            command=typed.command,
            launch=launch(),
        )
    if report is not None:
        print_summary(make_console(), report, settings.out)
        raise typer.Exit(exit_code(report.verdict))
