"""The command line: commands, and the one table from outcomes to exit codes."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from snowsdeploy.errors import SnowsDeployError, UsageError
from snowsdeploy_cli.commands import doctor, export, gate, inspect, prune, prune_export, validate
from snowsdeploy_cli.console import print_error

USAGE, FAILED_TO_RUN, INTERRUPTED = 2, 3, 130

app = typer.Typer(
    help="Turn a trained vision model into a verified 2:4 sparse ONNX model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog="Exit codes: 0 passed, 2 usage, 3 could not run, 4 a gate failed, 5 inconclusive.",
)
app.command("prune-export")(prune_export.command)
app.command("prune")(prune.command)
app.command("export")(export.command)
app.command("validate")(validate.command)
app.command("gate")(gate.command)
app.command("inspect")(inspect.command)
app.command("doctor")(doctor.command)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"snowsdeploy {version('snowsdeploy')}")
        raise typer.Exit


@app.callback()
def _main(
    show: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Entry point: run a command and exit by the table above."""
    try:
        app()
    except SnowsDeployError as error:
        print_error(error)
        sys.exit(USAGE if isinstance(error, UsageError) else FAILED_TO_RUN)
    except KeyboardInterrupt:
        typer.echo("\ninterrupted: run the same command with --resume instead of --force to continue", err=True)
        sys.exit(INTERRUPTED)
