"""`snowsdeploy plan`: what a pruning run will cost here."""

from __future__ import annotations

import typer

from snowsdeploy.settings.jobs import PlanJob
from snowsdeploy_cli.arguments import AsJson
from snowsdeploy_cli.session import alone, require_prune
from snowsdeploy_cli.signature import Quiet, Typed, options_of


@options_of(PlanJob)
def command(typed: Typed, *, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Predict time, memory and disk of prune and prune-export on this machine from a few measured products."""
    settings = typed.settings(PlanJob)
    require_prune("plan")
    from snowsdeploy.stages.job import run_plan
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.render import print_plan

    with alone("plan", quiet=quiet) as observer:
        predicted = run_plan(settings, observer=observer)
    if as_json:
        typer.echo(predicted.model_dump_json(indent=2))
    else:
        print_plan(make_console(), predicted)
