"""Figures of the report as inline SVG: text stays text, colours follow the page's light or dark scheme."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from snowsdeploy.plain_text import plain
from snowsdeploy.values import SHARE, Estimate, Latency, Metric, Report

# Placeholders that the page's style sheet gives their colours; matplotlib wants literal ones.
_INK, _DENSE, _SPARSE = "#010203", "#010204", "#010205"
_VARIABLES = {_INK: "var(--ink)", _DENSE: "var(--dense)", _SPARSE: "var(--sparse)"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "snowsdeploy", "font.family": "sans-serif", "font.size": 11,
    "text.color": _INK, "axes.edgecolor": _INK, "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "text.parse_math": False, "text.usetex": False,  # names of runs and metrics are no formulas
}  # fmt: skip


def accuracy_plot(report: Report) -> str:
    """The metric that counts most with its interval, dense and sparse, a row for each precision; empty without one."""
    rows: list[tuple[str, Estimate, str]] = []
    first = next((v.accuracy.metric for v in report.variants if v.accuracy and v.accuracy.metric), None)
    for variant in report.variants:
        metric = None if variant.accuracy is None else variant.accuracy.metric
        if metric is None:
            continue
        if not rows:
            rows.append(("dense fp32", metric.dense, _DENSE))
        if metric.same_precision is not None:
            rows.append((f"dense {variant.precision}", metric.same_precision, _DENSE))
        rows.append((f"sparse {variant.precision}", metric.sparse, _SPARSE))
    if first is None:
        return ""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(len(rows))
        for y, (_, value, colour) in enumerate(rows):
            middle = first.factor * value.value
            axes.errorbar(middle, y, xerr=_reach(value, first.factor), fmt="o", color=colour, capsize=4)
            text = f"{middle:.2f}" if first.unit == SHARE else f"{middle:.4g}"
            axes.annotate(text, (middle, y), xytext=(0, 7), textcoords="offset points", ha="center")
        _name_rows(axes, [name for name, *_ in rows])
        axes.set_xlabel(_axis(first) + (", with 95 % interval" if rows[0][1].low is not None else ""))
        return _svg(figure, f"{first.label} of each file with its confidence interval")


def _axis(metric: Metric) -> str:
    unit = "%" if metric.unit == SHARE else metric.unit
    return plain(f"{metric.label}, {unit}" if unit else metric.label)


def _reach(value: Estimate, factor: float) -> list[list[float]] | None:
    if value.low is None or value.high is None:
        return None
    middle = factor * value.value
    return [[middle - factor * value.low], [factor * value.high - middle]]


def latency_plot(latency: Latency, precision: str) -> str:
    """Median to 99th percentile of both files at each batch size, on a logarithmic axis."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(len(latency.series))
        for y, series in enumerate(latency.series):
            colour = _DENSE if series.role == "dense" else _SPARSE
            axes.plot([series.p50_ms, series.p99_ms], [y, y], color=colour, lw=2, alpha=0.6)
            axes.plot([series.p50_low_ms, series.p50_high_ms], [y, y], color=colour, lw=7, solid_capstyle="butt")
            axes.plot([series.p90_ms, series.p99_ms], [y, y], "|", color=colour, ms=11, mew=2)
            axes.plot(series.p50_ms, y, "o", color=colour)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        _name_rows(axes, [f"{s.role}, batch {s.at}" for s in latency.series])
        axes.set_xlabel("ms a call: median with its interval, marks at p90 and p99")
        return _svg(figure, f"Latency of the dense and the sparse {precision} file at each batch size")


def effort_plot(reports: Mapping[str, Report]) -> str:
    """A metric of the sparse model against the seconds of pruning, a point a run; empty with fewer than two of one."""
    found = [(name, r.prune.seconds, m) for name, r in reports.items() if (m := _first_metric(r)) is not None]
    first = found[0][2] if found else None
    points = [(name, seconds, m.sparse) for name, seconds, m in found if first is not None and m.name == first.name]
    if first is None or len(points) < 2:
        return ""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 3.6), layout="constrained")
        axes = figure.subplots()
        for name, seconds, value in points:
            middle = first.factor * value.value
            axes.errorbar(seconds, middle, yerr=_reach(value, first.factor), fmt="o", color=_SPARSE, capsize=4)
            axes.annotate(plain(name), (seconds, middle), xytext=(7, 4), textcoords="offset points")
        axes.set_xscale("log")
        axes.margins(x=0.25)
        axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        axes.grid(alpha=0.2)
        axes.set_xlabel("seconds of pruning")
        axes.set_ylabel(f"sparse {_axis(first)}")
        return _svg(figure, f"{first.label} of each run against the time that its pruning took")


def _first_metric(report: Report) -> Metric | None:
    """Of the first precision that was measured with one."""
    return next((v.accuracy.metric for v in report.variants if v.accuracy and v.accuracy.metric), None)


def _figure(rows: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.5, 0.9 + 0.42 * rows), layout="constrained")
    axes = figure.subplots()
    axes.margins(y=0.5 / rows)
    return figure, axes


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.2)


def _svg(figure: Figure, label: str) -> str:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's browser has fonts of its own
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    for literal, variable in _VARIABLES.items():
        text = text.replace(literal, variable)
    text = re.sub(r'\bwidth="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(plain(label))}"', 1)
