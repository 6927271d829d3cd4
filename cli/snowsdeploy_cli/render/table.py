"""The one look of all tables."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from snowsdeploy.plain_text import plain

STYLE = {"pass": "green", "fail": "red", "inconclusive": "yellow"}


class PlainTable(Table):
    """A table whose texts are shown as they are, on one line: no markup, nothing that acts. Style comes with `Text`."""

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, end_section: bool = False) -> None:
        """A row."""
        shown = [Text(plain(cell)) if isinstance(cell, str) else cell for cell in cells]
        super().add_row(*shown, style=style, end_section=end_section)


def make_table(title: str, *columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """A table without vertical lines.

    Args:
        title: Printed above, on the left.
        columns: Headings, of one or two lines; a long cell of any of them is folded.
        numbers: Headings that are aligned to the right.
    """
    look = box.SIMPLE_HEAD
    table = PlainTable(title=Text(plain(title), "bold"), title_justify="left", box=look, pad_edge=False)
    for column in columns:
        heading = two_lines(column)
        table.add_column(heading, justify="right" if column in numbers else "left", overflow="fold")
    return table


def two_lines(text: str) -> Text:
    """A text that the caller broke into lines."""
    return Text("\n".join(plain(line) for line in text.split("\n")))
