"""Runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.markup import escape

from snowsdeploy_cli.console import say
from snowsdeploy_cli.render.table import STYLE, make_table

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.values import Comparison, Report


def print_comparison(console: Console, reports: Mapping[str, Report]) -> None:
    """A row for each precision of each run."""
    from snowsdeploy.report.compare import compared_files

    numbers = ("top-1", "drop", "KL", "MiB", "ratio", "s")
    title = "Runs side by side; ratio is dense over sparse latency, s the seconds of pruning"
    table = make_table(title, "run", "type", *numbers, "verdict", numbers=numbers)
    for row in compared_files(reports):
        accuracy, ratio = row.variant.accuracy, row.ratio
        labelled = accuracy is not None and accuracy.sparse_top1 is not None
        table.add_row(
            escape(row.name),
            row.variant.precision,
            f"{accuracy.sparse_top1.value:.2%}" if accuracy and accuracy.sparse_top1 else "",
            f"{accuracy.paired.drop:.2f}" if labelled and accuracy and accuracy.paired else "",
            f"{accuracy.agreement.kl:.4f}" if accuracy else "",
            f"{row.variant.sparse.size_bytes / 2**20:.2f}",
            f"{ratio.speedup:.2f}" if ratio else "",
            f"{row.report.prune.seconds:.0f}",
            f"[{STYLE[row.outcome]}]{row.outcome}[/]" if row.outcome else "",
        )
    console.print(table)


def print_compared_runs(console: Console, comparison: Comparison) -> None:
    """Selectors under solvers: accuracy, objective, time, coverage."""
    numbers = ("top-1", "agree", "KL", "objective", "weights", "s")
    table = make_table(
        f"{comparison.pattern}: selectors under solvers; agree is with the dense model's class",
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
            f"{run.top1.value:.2%}" if run.top1 else "",
            f"{run.agreement:.2%}" if run.agreement is not None else "",
            f"{run.kl:.4f}" if run.kl is not None else "",
            f"{run.objective:.4f}" if run.objective is not None else "",
            f"{run.coverage:.1%}" if run.coverage is not None else "",
            f"{run.seconds:.0f}" if run.seconds is not None else "",
        )
    console.print(table)
    dense = next((run.dense_top1 for run in comparison.runs if run.dense_top1), None)
    if dense is not None:
        say(console, f"The dense model has top-1 {dense.value:.2%} on {dense.total} images.")
    for run in comparison.runs:
        if run.problem:
            say(console, f"{run.selector}, {run.solver}: {run.problem}", style="red")
