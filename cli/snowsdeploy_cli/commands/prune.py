"""`snowsdeploy prune`: the pruning stage alone."""

from __future__ import annotations

from snowsdeploy.settings.jobs import PruneJob
from snowsdeploy_cli.session import require_prune, shared
from snowsdeploy_cli.signature import Quiet, Typed, options_of


@options_of(PruneJob)
def command(typed: Typed, *, quiet: Quiet = False) -> None:
    """Load, prune and solve; leaves the dense program, the pruned weights, their masks and prune.json in --out."""
    settings = typed.settings(PruneJob)
    require_prune("prune")
    from snowsdeploy.stages.job import run_prune, version_warnings
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.processes import launch
    from snowsdeploy_cli.render import print_pruning

    with shared(settings.device, quiet=quiet) as (observer, first):
        for text in version_warnings(typed.file):
            observer.warn(text)
        pruned = run_prune(settings, policy=typed.policy(), observer=observer, command=typed.command, launch=launch())
    if first:
        print_pruning(make_console(), pruned.report, settings.out)
