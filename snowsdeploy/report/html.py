"""Report -> one self-contained HTML file: no script, no network."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from snowsdeploy.report.plots import accuracy_plot, latency_plot
from snowsdeploy.report.shared import render_template
from snowsdeploy.values import LayerReport, LayerSparsity, Report, Variant


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
    return render_template(
        "report.html.j2",
        report=report,
        outcome=None if report.verdict is None else report.verdict.verdict,
        accuracy_plot=Markup(accuracy_plot(report)),
        latency_plots={v.precision: Markup(latency_plot(v.latency, v.precision)) for v in report.variants if v.latency},
        layers={v.precision: _layers(report, v) for v in report.variants},
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
