"""`snowsdeploy gate`: judge a report again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snowsdeploy_cli import options as o

ReportFile = Annotated[Path, typer.Argument(help="A report.json.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def command(report: ReportFile, policy: o.Policy = None, as_json: AsJson = False) -> None:
    """Judge a report by a policy: exit 0 passed, 4 failed, 5 inconclusive."""
    from snowsdeploy.gate.judge import judge
    from snowsdeploy.gate.policy import GatePolicy, load_policy
    from snowsdeploy.report.store import read_report
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.outcome import exit_code
    from snowsdeploy_cli.render import print_verdict

    verdict = judge(read_report(report), load_policy(policy) if policy else GatePolicy())
    if as_json:
        typer.echo(verdict.model_dump_json(indent=2))
    else:
        print_verdict(make_console(), verdict)
    raise typer.Exit(exit_code(verdict))
