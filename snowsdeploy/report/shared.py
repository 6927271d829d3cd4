"""What the Markdown and the HTML rendering of a report have in common."""

from __future__ import annotations

from typing import Any

import jinja2

from snowsdeploy.values import LatencySeries, Variant

VERDICTS = {"pass": "Passed", "fail": "Failed", "inconclusive": "Inconclusive", None: "Not judged"}


def render_template(name: str, **values: Any) -> str:  # noqa: ANN401 - whatever the template shows
    """Render a template of this package; HTML is escaped, and a name that is not given is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("snowsdeploy.report"),
        autoescape=name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(verdicts=VERDICTS, series=series, **values)


def series(variant: Variant, role: str, at: str) -> LatencySeries:
    """The latencies of one file at one batch size."""
    assert variant.latency is not None
    return next(s for s in variant.latency.series if (s.role, s.at) == (role, at))
