"""The command line: its commands, each under the one table from outcomes to exit codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from snowsdeploy_cli.commands import (
    compare,
    debug,
    doctor,
    export,
    gate,
    inspect,
    plan,
    profile,
    prune,
    prune_export,
    report,
    schema,
    validate,
)
from snowsdeploy_cli.outcome import guarded
from snowsdeploy_cli.version import version_text

app = typer.Typer(
    help="Turn a trained vision model into a verified 2:4 sparse ONNX model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog="Exit codes: 0 passed, 2 usage, 3 could not run, 4 a gate failed, 5 inconclusive, 130 interrupted, "
    "143 terminated.",
)

COMMANDS: dict[str, Callable[..., None]] = {
    "prune-export": prune_export.command,
    "plan": plan.command,
    "prune": prune.command,
    "export": export.command,
    "validate": validate.command,
    "gate": gate.command,
    "report": report.command,
    "profile": profile.command,
    "compare": compare.command,
    "inspect": inspect.command,
    "doctor": doctor.command,
    "schema": schema.command,
}
for name, function in COMMANDS.items():
    app.command(name)(guarded(function))

DEBUG_COMMANDS: dict[str, Callable[..., None]] = {"parity": debug.parity, "accuracy": debug.accuracy}
debug_app = typer.Typer(help="Find out why parity or accuracy fails.", no_args_is_help=True)
for name, function in DEBUG_COMMANDS.items():
    debug_app.command(name)(guarded(function))
app.add_typer(debug_app, name="debug")


def _show_version(value: bool) -> None:
    if value:
        typer.echo(version_text())
        raise typer.Exit


ShowVersion = Annotated[
    bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
]


@app.callback()
def _before_any_command(show: ShowVersion = False) -> None:
    """Turn a trained vision model into a verified 2:4 sparse ONNX model."""
