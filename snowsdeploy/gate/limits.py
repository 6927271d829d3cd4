"""What a policy says of one metric."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from snowsdeploy.settings.policy import OFF
from snowsdeploy.values import Estimate, Quantity


def absent(limits: float | str | Mapping[str, float | str], names: Collection[str]) -> dict[str, float | str]:
    """What a policy asks of metrics that a report does not have."""
    if not isinstance(limits, Mapping):
        return {}
    return {name: limit for name, limit in limits.items() if name not in names and limit != OFF}


def reach_of(limit: float | str, quantity: Quantity, of: Estimate) -> float:
    """A limit of drops in the unit of differences.

    Args:
        limit: A number in that unit, or a text such as `1%`.
        quantity: What drops.
        of: What such a text is relative to.
    """
    return float(limit.rstrip("% ")) / 100 * abs(of.value) * quantity.factor if isinstance(limit, str) else limit


def limit_of(
    limits: float | str | Mapping[str, float | str], name: str, usual: float | None, *, first: bool
) -> float | str | None:
    """What a policy says of one metric: its own limit, else the usual one; None where it is not judged.

    Args:
        limits: One for the metric that counts most, or a table.
        name: The metric's.
        usual: Its usual limit.
        first: Whether it counts most.
    """
    if isinstance(limits, Mapping):
        found = limits.get(name, usual)
        return None if found == OFF else found
    return limits if first else None


def not_there(names: Sequence[str]) -> str:
    """The reason why a metric that a policy names is not judged."""
    return f"the report has {', '.join(names) or 'no metric'}"
