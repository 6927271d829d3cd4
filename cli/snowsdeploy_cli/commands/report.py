"""`snowsdeploy report`: reports for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ReportFiles = Annotated[list[Path], typer.Argument(help="A report.json to render, or several to compare.")]
Output = Annotated[Path | None, typer.Option("--out", help="HTML file; beside the report when not given.")]


def command(reports: ReportFiles, out: Output = None) -> None:
    """Write a report.json as one self-contained HTML file, or several side by side."""
    from snowsdeploy.files import write_text_atomic
    from snowsdeploy.report.compare import render_comparison
    from snowsdeploy.report.html import render_html
    from snowsdeploy.report.store import read_report
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.render import print_comparison

    found = [read_report(path) for path in reports]
    if len(reports) == 1:
        target = out or reports[0].with_suffix(".html")
        write_text_atomic(target, render_html(found[0]))
    else:
        named = dict(zip(_names(reports), found, strict=True))
        target = out or Path("comparison.html")
        write_text_atomic(target, render_comparison(named))
        print_comparison(make_console(), named)
    typer.echo(f"Written to {target}")


def _names(paths: list[Path]) -> list[str]:
    """The folders that the reports lie in, or their paths where those are alike."""
    names = [path.resolve().parent.name if path.name == "report.json" else path.stem for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
