"""The numbers that values hold, each within its range: nothing is infinite, and no text or truth value is a number."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

_MOST = 2**63 - 1  # of whole numbers; more do not fit into a float
_LARGEST, _LONGEST = 1e100, 1e12  # of measurements, and of times in their unit: products of two stay finite

Whole: TypeAlias = Annotated[int, Field(strict=True, ge=-_MOST, le=_MOST)]
Count: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=_MOST)]
Size: TypeAlias = Annotated[int, Field(strict=True, gt=0, le=_MOST)]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
Number: TypeAlias = Annotated[float, Field(strict=True, ge=-_LARGEST, le=_LARGEST)]
From0: TypeAlias = Annotated[float, Field(strict=True, ge=0, le=_LARGEST)]
Above0: TypeAlias = Annotated[float, Field(strict=True, gt=0, le=_LARGEST)]
Share: TypeAlias = Annotated[float, Field(strict=True, ge=0, le=1)]
Level: TypeAlias = Annotated[float, Field(strict=True, gt=0, lt=1)]
Milliseconds: TypeAlias = Annotated[float, Field(strict=True, gt=0, le=_LONGEST)]
Seconds: TypeAlias = Annotated[float, Field(strict=True, ge=0, le=_LONGEST)]
Unbounded: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=True)]


def require_ordered(**values: float) -> None:
    """Refuse numbers that fall, such as an interval whose low end lies above its high end.

    Raises:
        ValueError: They fall somewhere; it names all.
    """
    numbers = list(values.values())
    if numbers != sorted(numbers):
        raise ValueError(f"{' <= '.join(values)} does not hold for {', '.join(f'{n:g}' for n in numbers)}")


def require_interval(value: float, low: float | None, high: float | None) -> None:
    """Refuse an interval with one end, and one that does not hold its estimate.

    Raises:
        ValueError: It is such a one.
    """
    if low is None and high is None:
        return
    if low is None or high is None:
        raise ValueError("an interval has two ends or none: low and high are both numbers, or both null")
    require_ordered(low=low, value=value, high=high)


def near(a: float, b: float, scale: float = 1.0) -> bool:
    """Whether two numbers are the same but for the order of sums.

    Args:
        a: One.
        b: The other.
        scale: Of what they are made of.
    """
    return abs(a - b) <= 1e-6 * max(abs(a), abs(b), scale)
