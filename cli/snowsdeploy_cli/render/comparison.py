"""Runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.markup import escape

from snowsdeploy_cli.render.table import STYLE, make_table

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.artifacts import Report


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
