"""Progress: a rich bar on a terminal and in a notebook, plain lines elsewhere; for the command line and for Python."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from snowsdeploy.plain_text import plain
from snowsdeploy.streams import plain_stream

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

PLAIN_WIDTH = 80
_WIDTHS = range(20, 2000)  # of a terminal that says something else, nothing is known
_WIDTH = 42  # of what stands beside the bar in 80 columns
_SILENCE = 60.0  # seconds after which a log without a terminal says what goes on


def make_console(*, stderr: bool = False, stream: TextIO | None = None) -> Console:
    """A rich console: colour, boxes and bars on a terminal or in a notebook; plain text at 80 columns elsewhere.

    Args:
        stderr: Write to standard error.
        stream: Where to write instead.
    """
    from snowsdeploy.plain_console import PlainConsole  # noqa: PLC0415 - rich is not for those who show nothing

    file = plain_stream(stream or (sys.stderr if stderr else sys.stdout))
    looks: dict[str, Any] = {"file": file, "stderr": stderr, "highlight": False, "emoji": False}
    if (file.isatty() and not os.environ.get("CI")) or in_notebook():
        console = PlainConsole(**looks)
        if console.width not in _WIDTHS:
            console.width = PLAIN_WIDTH
        return console
    return PlainConsole(**looks, force_terminal=False, no_color=True, width=_columns())


def _columns() -> int:
    """What the environment says, where a text can be read at that width."""
    text = os.environ.get("COLUMNS", "")
    columns = int(text) if text.isdecimal() and len(text) < 6 else 0
    return columns if columns in _WIDTHS else PLAIN_WIDTH


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a sentence as it is (no markup), broken between words only, so that paths can be copied."""
    text = plain(text)
    rest = "" if text[:1].isalnum() else " " * (len(text) - len(text.lstrip(" "))) + "  "
    console.print(wrap(text, "", rest, console.width), style=style, markup=False, soft_wrap=True)


def wrap(text: str, first: str, other: str, width: int = PLAIN_WIDTH) -> str:
    """Lines broken between words only."""
    lines = textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=other, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


class ConsoleObserver:
    """Renders what `snowsdeploy.progress.Observer` is told.

    Args:
        console: Where to write.
        quiet: Write warnings only.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._started = self._spoke = time.monotonic()

    def __enter__(self) -> Self:
        """Start the live display on a terminal."""
        if (self._console.is_terminal or self._console.is_jupyter) and not self._quiet:
            from rich.progress import (  # noqa: PLC0415 - as above
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(20),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the live display."""
        if self._progress is not None:
            self._progress.stop()

    def stage(self, name: str, detail: str = "") -> None:
        """A stage begins."""
        self._started = time.monotonic()
        self._print(f"{name}: {detail}" if detail else name)
        if self._progress is not None:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(name, total=None)

    def advance(self, done: int, total: int, detail: str = "") -> None:
        """`done` of `total` steps are finished; plain output has a line for each step that has a detail."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)
        if detail:
            self._print(f"  [{done}/{total}] {detail}{self._time_left(done, total)}")
        elif done == total:
            self._print(f"  {done}/{total} in {time.monotonic() - self._started:.1f} s")

    def doing(self, text: str, done: float, total: int) -> None:
        """What goes on: beside the bar on a terminal, else a line when there was none for a while."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=plain(text)[:_WIDTH], completed=done, total=total)
        elif time.monotonic() - self._spoke > _SILENCE:
            self._print(f"  [{int(done)}/{total}] {text}")

    def message(self, text: str) -> None:
        """Something worth reading."""
        self._print(f"  {text}")

    def warn(self, text: str) -> None:
        """Something to act on; shown even when quiet."""
        say(self._console, f"warning: {text}", style="yellow")

    def _time_left(self, done: int, total: int) -> str:
        if not 0 < done < total:
            return ""
        seconds = (time.monotonic() - self._started) / done * (total - done)
        return f"; about {seconds:.0f} s left" if seconds < 120 else f"; about {seconds / 60:.0f} min left"

    def _print(self, text: str) -> None:
        self._spoke = time.monotonic()
        if not self._quiet:
            say(self._console, text)
