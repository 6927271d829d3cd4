"""A rich console on which text from outside is text: what acts on a terminal is shown by its escape."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from snowsdeploy.plain_text import escaped_lines


class PlainConsole(Console):
    """Only what rich itself makes, colours and bars, is sent as it is."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of anything that is printed."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escaped_lines(segment.text))
