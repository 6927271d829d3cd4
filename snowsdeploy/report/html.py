"""Report -> one self-contained HTML file: no script, no network."""

from __future__ import annotations

from dataclasses import dataclass

import jinja2
from markupsafe import Markup

from snowsdeploy.artifacts import LatencySeries, LayerReport, LayerSparsity, Proportion, Report, Variant
from snowsdeploy.report.plots import accuracy_plot, latency_plot

VERDICTS = {"pass": "Passed", "fail": "Failed", "inconclusive": "Inconclusive", None: "Not judged"}


@dataclass(frozen=True)
class LayerRow:
    """A layer of a file beside the solve that made its weights.

    Attributes:
        file: What the file holds.
        solve: Its reconstruction; None for a layer that stays dense.
        share: Share of the solving time, 0 to 1; layers solved together share their solve equally.
    """

    file: LayerSparsity
    solve: LayerReport | None
    share: float


def render_html(report: Report) -> str:
    """Verdict first, then what it rests on; readable without scripts, in light and dark, on a phone."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("snowsdeploy.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"pct": _percent, "mib": lambda size: f"{size / 2**20:.2f}"}
    return environment.get_template("report.html.j2").render(
        report=report,
        outcome=report.verdict.verdict if report.verdict else None,
        verdicts=VERDICTS,
        accuracy_plot=Markup(accuracy_plot(report)),
        latency_plots={v.precision: Markup(latency_plot(v.latency, v.precision)) for v in report.variants if v.latency},
        layers={v.precision: _layers(report, v) for v in report.variants},
        series=_series,
    )


def _layers(report: Report, variant: Variant) -> list[LayerRow]:
    if variant.sparsity is None:
        return []
    solves = {name: solve for solve in report.prune.solves for name in solve.layers}
    total = sum(solve.seconds for solve in report.prune.solves) or 1.0
    rows = []
    for layer in variant.sparsity.layers:
        solve = solves.get(layer.name)
        rows.append(LayerRow(layer, solve, solve.seconds / len(solve.layers) / total if solve else 0.0))
    return rows


def _series(variant: Variant, role: str, batch: int) -> LatencySeries:
    assert variant.latency is not None
    return next(s for s in variant.latency.series if (s.role, s.batch) == (role, batch))


def _percent(value: Proportion) -> str:
    return f"{value.value:.2%} [{value.low:.2%}, {value.high:.2%}]"
