"""How the library tells what it is doing, without printing."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Receives progress; the command line renders it."""

    def stage(self, name: str, detail: str = "") -> None:
        """A stage begins."""

    def advance(self, done: int, total: int, detail: str = "") -> None:
        """`done` of `total` steps of the current stage are finished."""

    def doing(self, text: str, done: float, total: int) -> None:
        """What goes on inside a long step, `done` counting the part of it that is finished; nothing to keep."""

    def message(self, text: str) -> None:
        """Something worth reading."""

    def warn(self, text: str) -> None:
        """Something the user should act on; it is also in the report."""


class NullObserver:
    """Ignores everything."""

    def stage(self, name: str, detail: str = "") -> None:
        """See `Observer`."""

    def advance(self, done: int, total: int, detail: str = "") -> None:
        """See `Observer`."""

    def doing(self, text: str, done: float, total: int) -> None:
        """See `Observer`."""

    def message(self, text: str) -> None:
        """See `Observer`."""

    def warn(self, text: str) -> None:
        """See `Observer`."""
