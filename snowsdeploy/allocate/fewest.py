"""The fewest candidates that must be taken for a check to pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def fewest_that_pass(candidates: Sequence[T], passes: Callable[[frozenset[T]], bool]) -> tuple[T, ...] | None:
    """A smallest prefix by bisection, then without every candidate that it can do without.

    Bisection takes for granted that more candidates never do worse. That the result passes is never taken for granted:
    it is a set that was checked. Each of its candidates was tried to be left out, the least useful first.

    Args:
        candidates: The most useful first.
        passes: The check, of a set of candidates; each set is asked once.

    Returns:
        The candidates in the order given; None when not even all of them pass.
    """
    asked: dict[frozenset[T], bool] = {}

    def ask(chosen: Sequence[T]) -> bool:
        key = frozenset(chosen)
        if key not in asked:
            asked[key] = passes(key)
        return asked[key]

    if ask(()):
        return ()
    if not ask(candidates):
        return None
    fails, holds = 0, len(candidates)
    while holds - fails > 1:
        middle = (fails + holds) // 2
        if ask(candidates[:middle]):
            holds = middle
        else:
            fails = middle
    chosen = list(candidates[:holds])
    for candidate in reversed(tuple(chosen)):
        without = [c for c in chosen if c != candidate]
        if ask(without):
            chosen = without
    return tuple(chosen)
