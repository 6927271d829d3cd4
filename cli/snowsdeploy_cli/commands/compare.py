"""`snowsdeploy compare`: mask selectors and solvers side by side on one model."""

from __future__ import annotations

from snowsdeploy.settings.jobs import CompareJob
from snowsdeploy_cli.session import alone, require_prune
from snowsdeploy_cli.signature import Quiet, Typed, options_of


@options_of(CompareJob)
def command(typed: Typed, *, quiet: Quiet = False) -> None:
    """Prune, export and measure a model with each selector under each solver; what was run before is not run again."""
    settings = typed.settings(CompareJob)
    require_prune("compare")
    from snowsdeploy.stages.compare import compare, jobs_of
    from snowsdeploy_cli.console import make_console, say
    from snowsdeploy_cli.render import print_compared_runs
    from snowsdeploy_exporters import OnnxExporter

    with alone("compare", quiet=quiet) as observer:
        compared = compare(settings.out, jobs_of(settings), OnnxExporter(), observer, policy=typed.policy())
    console = make_console()
    print_compared_runs(console, compared)
    say(console, f"Written to {settings.out}: comparison.json, comparison.html, and a run directory for each row")
