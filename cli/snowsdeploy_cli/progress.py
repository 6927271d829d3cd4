"""Progress: a rich bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_LINES = 10  # plain lines for a stage with many steps


class ConsoleObserver:
    """Renders `snowsdeploy.progress.Observer`."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        """Write to `console`; `quiet` keeps only warnings."""
        self._console, self._quiet = console, quiet
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._started = time.monotonic()
        self._kept: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        """Start the live display on a terminal."""
        if self._console.is_terminal and not self._quiet:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop the live display."""
        if self._progress is not None:
            self._progress.stop()

    def stage(self, name: str, detail: str = "") -> None:
        """A stage begins."""
        self._stage, self._started = name, time.monotonic()
        self._print(f"{name}: {detail}" if detail else name)
        if self._progress is not None:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(name, total=None)

    def advance(self, done: int, total: int, detail: str = "") -> None:
        """Some steps are done."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)
        left = (time.monotonic() - self._started) / done * (total - done)
        if detail:
            self._print(f"  [{done}/{total}] {detail}; {left:.0f} s left")
        elif self._progress is None and done * _LINES // total != (done - 1) * _LINES // total and done == total:
            self._print(f"  {done}/{total}")

    def message(self, text: str) -> None:
        """Something worth reading."""
        self._print(f"  {text}")

    def warn(self, text: str) -> None:
        """Something to act on."""
        self._console.print(f"warning: {text}", style="yellow", markup=False)

    def _print(self, text: str) -> None:
        if not self._quiet:
            self._console.print(text, markup=False)
