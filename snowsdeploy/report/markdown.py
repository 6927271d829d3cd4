"""Report -> Markdown summary."""

from __future__ import annotations

from snowsdeploy.report.shared import render_template
from snowsdeploy.values import Report


def render_markdown(report: Report) -> str:
    """Verdict first, then accuracy, latency, parity, layers, environment and the command."""
    return render_template("summary.md.j2", report=report)
