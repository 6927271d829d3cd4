"""`snowsdeploy doctor`: what this machine can run."""

from __future__ import annotations

import typer

from snowsdeploy_cli.arguments import AsJson


def command(*, as_json: AsJson = False) -> None:
    """Show GPU, sparse tensor cores, execution providers that really load, and versions."""
    from snowsdeploy.runtime.doctor import diagnose
    from snowsdeploy_cli.console import make_console, quiet_onnxruntime
    from snowsdeploy_cli.render import print_diagnosis

    quiet_onnxruntime()
    diagnosis = diagnose()
    if as_json:
        typer.echo(diagnosis.model_dump_json(indent=2))
    else:
        print_diagnosis(make_console(), diagnosis)
