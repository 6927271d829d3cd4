"""The one look of all tables."""

from __future__ import annotations

from rich import box
from rich.table import Table

STYLE = {"pass": "green", "fail": "red", "inconclusive": "yellow"}


def make_table(title: str, *columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """A table without vertical lines.

    Args:
        title: Printed above, on the left.
        columns: Headings; a long cell of any of them is folded.
        numbers: Headings that are aligned to the right.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return table
