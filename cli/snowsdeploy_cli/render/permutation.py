"""Channels that changed places."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from snowsdeploy_cli.console import say

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.values import Permutation

_NAMES = 4  # shown of those that share a reason


def print_permutation(console: Console, permutation: Permutation | None) -> None:
    """What was gained, and why layers could not take part, one line a reason."""
    if permutation is None:
        return
    say(console, f"{permutation}, {permutation.seconds:.0f} s")
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, reason in permutation.refused.items():
        reasons[reason].append(name)
    for reason, names in reasons.items():
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        say(console, f"  input channels not permuted, {reason}: {', '.join(names[:_NAMES])}{more}")
