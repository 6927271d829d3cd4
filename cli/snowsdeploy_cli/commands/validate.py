"""`snowsdeploy validate`: the validation stage alone."""

from __future__ import annotations

import typer

from snowsdeploy.settings.jobs import ValidateJob
from snowsdeploy_cli.arguments import RunFolder
from snowsdeploy_cli.session import observed, require_prune
from snowsdeploy_cli.signature import Quiet, Typed, options_of


@options_of(ValidateJob)
def command(typed: Typed, run: RunFolder, *, quiet: Quiet = False) -> None:
    """Measure a run's ONNX files, judge and report.

    What is not given is as the run had it. Beside a report of the same files only what the given options are about is
    measured again, and the rest of the report is kept.
    """
    typed.settings(ValidateJob)
    require_prune("validate")
    from snowsdeploy.stages.later import run_validate
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.outcome import exit_code
    from snowsdeploy_cli.render import print_summary

    with observed(quiet=quiet) as observer:
        report = run_validate(
            run, typed.values, file=typed.file, policy=typed.policy(), observer=observer, command=typed.command
        )
    print_summary(make_console(), report, run)
    raise typer.Exit(exit_code(report.verdict))
