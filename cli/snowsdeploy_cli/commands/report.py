"""`snowsdeploy report`: a report for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ReportFile = Annotated[Path, typer.Argument(help="A report.json.")]
Output = Annotated[Path | None, typer.Option("--out", help="HTML file; beside the report when not given.")]


def command(report: ReportFile, out: Output = None) -> None:
    """Write a report.json as one self-contained HTML file."""
    from snowsdeploy.files import write_text_atomic
    from snowsdeploy.report.html import render_html
    from snowsdeploy.report.store import read_report

    target = out or report.with_suffix(".html")
    write_text_atomic(target, render_html(read_report(report)))
    typer.echo(f"Written to {target}")
