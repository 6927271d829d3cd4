"""Runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.text import Text

from snowsdeploy_cli.console import say
from snowsdeploy_cli.render.table import STYLE, make_table

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.values import Accuracy, Comparison, Report


def print_comparison(console: Console, reports: Mapping[str, Report]) -> None:
    """A row for each precision of each run."""
    from snowsdeploy.report.compare import compared_files

    numbers = ("metric", "drop", "alike", "MiB", "ratio", "s")
    title = "Runs side by side; ratio is dense over sparse latency, s the seconds of pruning"
    table = make_table(title, "run", "type", *numbers, "verdict", numbers=numbers)
    for row in compared_files(reports):
        accuracy, ratio = row.variant.accuracy, row.ratio
        metric = accuracy.metric if accuracy else None
        table.add_row(
            row.name,
            row.variant.precision,
            metric.written(metric.sparse.value) if metric else "",
            f"{metric.drop.value:.3g}" if metric else "",
            f"{accuracy.agreement[-1].measured.value:.4f}" if accuracy else "",
            f"{row.variant.sparse.size_bytes / 2**20:.2f}",
            f"{ratio.speedup:.2f}" if ratio else "",
            f"{row.report.prune.seconds:.0f}",
            Text(row.outcome, STYLE[row.outcome]) if row.outcome else "",
        )
    console.print(table)


def print_compared_runs(console: Console, comparison: Comparison) -> None:
    """Selectors under solvers: accuracy, objective, time, coverage."""
    first = next((run.accuracy for run in comparison.runs if run.accuracy is not None), None)
    named = first.metric.label if first and first.metric else "metric"
    measures = first.agreement if first else ()
    alike = [measures[0], measures[-1]] if measures else []
    numbers = (named, *(m.label for m in alike), "objective", "weights", "s")
    table = make_table(
        f"{comparison.pattern}: selectors under solvers",
        "selector",
        "solver",
        *numbers,
        numbers=numbers,
    )
    for run in comparison.runs:
        if run.problem:
            continue
        table.add_row(
            run.selector,
            run.solver,
            _metric_text(run.accuracy),
            *(_measure_text(run.accuracy, measure.name) for measure in alike),
            f"{run.objective:.4f}" if run.objective is not None else "",
            f"{run.coverage:.1%}" if run.coverage is not None else "",
            f"{run.seconds:.0f}" if run.seconds is not None else "",
        )
    console.print(table)
    if first is not None and (metric := first.metric) is not None:
        dense = metric.written(metric.dense.value)
        say(console, f"The dense model has {metric.label} {dense} on {metric.dense.items} images.")
    for run in comparison.runs:
        if run.problem:
            say(console, f"{run.selector}, {run.solver}: {run.problem}", style="red")


def _metric_text(found: Accuracy | None) -> str:
    metric = found.metric if found else None
    return metric.written(metric.sparse.value) if metric else ""


def _measure_text(found: Accuracy | None, name: str) -> str:
    measure = next((m for m in found.agreement if m.name == name), None) if found else None
    if measure is None:
        return ""
    value = measure.measured.value
    return measure.written(value) if measure.unit == "share" else f"{value:.4f}"
