"""The text of a sparsity pattern, and what it allows."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple, TypeAlias

from pydantic import AfterValidator

_FORM = re.compile(r"(\d{1,4}):(\d{1,4})|(\d{1,2}(?:\.\d{1,4})?)%", re.ASCII)


def _pattern(text: str) -> str:
    found = _FORM.fullmatch(text)
    if found is None or not (0 < int(found[1]) < int(found[2]) if found[1] else float(found[3]) > 0):
        raise ValueError("a pattern is N:M with 0 < N < M, such as 2:4, or a share of zeros between 0 and 100%")
    return text


PatternText: TypeAlias = Annotated[str, AfterValidator(_pattern)]


class Allowed(NamedTuple):
    """What a pattern allows in one group.

    Attributes:
        group: Its weights.
        kept: How many of them may be other than zero.
    """

    group: int
    kept: int


def allowed_in_group(pattern: str, weights: int, share: float | None = None) -> Allowed:
    """What a pattern allows; an unstructured one has one group, the whole tensor.

    Args:
        pattern: A `PatternText`.
        weights: Of the tensor.
        share: Of zeros, where the tensor has its own.
    """
    found = _FORM.fullmatch(pattern)
    assert found is not None
    if found[1]:
        return Allowed(int(found[2]), int(found[1]))
    zeros = float(found[3]) / 100 if share is None else share
    return Allowed(weights, weights - round(zeros * weights))
