"""Report -> Markdown summary."""

from __future__ import annotations

import jinja2

from snowsdeploy.artifacts import LatencySeries, Proportion, Report, Variant


def render_markdown(report: Report) -> str:
    """Verdict first, then accuracy, latency, parity, layers, environment and the command."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("snowsdeploy.report"),
        autoescape=False,  # Markdown, not HTML
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )

    def series(variant: Variant, role: str, batch: int) -> LatencySeries:
        assert variant.latency is not None
        return next(s for s in variant.latency.series if (s.role, s.batch) == (role, batch))

    return environment.get_template("summary.md.j2").render(report=report, pct=_percent, series=series)


def _percent(value: Proportion) -> str:
    return f"{value.value:.2%} [{value.low:.2%}, {value.high:.2%}]"
