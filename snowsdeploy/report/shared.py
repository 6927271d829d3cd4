"""What the Markdown and the HTML rendering of a report have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2
from markupsafe import Markup

from snowsdeploy.plain_text import markdown, plain, without_commands
from snowsdeploy.values import LatencySeries, Variant

VERDICTS = {"pass": "Passed", "fail": "Failed", "inconclusive": "Inconclusive", None: "Not judged"}


def render_template(name: str, **values: Any) -> str:  # noqa: ANN401 - whatever the template shows
    """Render a template of this package; what its expressions say is plain text, and a lacking name is an error."""
    page = name.endswith(".html.j2")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("snowsdeploy.report"),
        autoescape=page,
        finalize=_shown_by(plain if page else markdown),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    text = environment.get_template(name).render(verdicts=VERDICTS, series=series, **values)
    return text if page else without_commands(text)


def _shown_by(show: Callable[[str], str]) -> Callable[[object], object]:
    """What becomes of each expression: `Markup` is ours, everything else is text."""

    def finalize(value: object) -> object:
        return value if isinstance(value, Markup) else show(str(value))

    return finalize


def series(variant: Variant, role: str, at: str) -> LatencySeries:
    """The latencies of one file at one batch size."""
    assert variant.latency is not None
    return next(s for s in variant.latency.series if (s.role, s.at) == (role, at))
