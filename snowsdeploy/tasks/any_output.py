"""Outputs of any meaning: relative error and cosine of each, or the share of values that are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from snowsdeploy.tasks.base import AbstractTask, Array, Output, Outputs, Scores
from snowsdeploy.tasks.statistics import mean
from snowsdeploy.values import Agreement

MAX_ERROR = 1e6  # relative, of what is zero in the dense model, whose error has no end
_TINY = float(np.finfo(np.float64).tiny)


@final
@dataclass(frozen=True)
class AnyOutput(AbstractTask):
    """Any number of outputs of any meaning; targets are for the user's own metric alone.

    Attributes:
        outputs: Their names, in order.
    """

    name: ClassVar[str] = "any"
    targets: ClassVar[str] = "whatever --metric reads"
    outputs: tuple[str, ...] = ("output",)

    def require_targets(self, targets: Array, output: Output, classes: Sequence[str] = ()) -> None:
        """Nothing to refuse: no metric of this task reads them."""

    def compare(self, dense: Outputs, other: Outputs) -> Scores:
        """Cosine and relative error of an item's values of each output; of whole numbers the share that is equal."""
        found: dict[str, Array] = {}
        for name, a, b in zip(self.outputs, dense, other, strict=True):
            if np.issubdtype(a.dtype, np.floating):
                found[f"cosine/{name}"] = cosine(a, b)
                found[f"relative_error/{name}"] = relative_error(a, b)
            else:
                found[f"equal/{name}"] = rows(a == b).mean(1)
        return found

    def agreement(self, compared: Scores) -> tuple[Agreement, ...]:
        """Of every output."""
        found = []
        for key, values in compared.items():
            kind, _, output = key.partition("/")
            measure = _MEASURES[kind](values)
            if len(self.outputs) > 1:
                named = {"name": f"{measure.name}.{output}", "label": f"{measure.label} of {output}"}
                measure = measure.model_copy(update=named)
            found.append(measure)
        return tuple(found)


def cosine_measure(values: Array, usual_limit: float | None = None) -> Agreement:
    """The mean of cosines `[items]`."""
    return Agreement(name="cosine", label="cosine", unit="", measured=mean(values), usual_limit=usual_limit)


def relative_error_measure(values: Array) -> Agreement:
    """The mean of relative errors `[items]`; it is told, not judged, since what is small depends on the output."""
    return Agreement(
        name="relative_error", label="relative error", unit="", higher_is_better=False, measured=mean(values)
    )


def _equal_measure(values: Array) -> Agreement:
    return Agreement(name="equal", label="equal values", measured=mean(values), usual_limit=0.9)


_MEASURES: dict[str, Callable[[Array], Agreement]] = {
    "cosine": lambda values: cosine_measure(values, usual_limit=0.9),
    "relative_error": relative_error_measure,
    "equal": _equal_measure,
}


def rows(values: Array) -> NDArray[np.float64]:
    """`[items, values]` in double precision."""
    return values.reshape(len(values), -1).astype(np.float64)


def cosine(dense: Array, other: Array) -> NDArray[np.float64]:
    """Between the values of each item, `[items]`; 1 where both are zero."""
    a, b = rows(dense), rows(other)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~a.any(1) & ~b.any(1)
    found: NDArray[np.float64] = (a * b).sum(1) / np.maximum(norms, _TINY)
    return np.where(both_zero, 1.0, found)


def relative_error(dense: Array, other: Array) -> NDArray[np.float64]:
    """2-norm of each item's difference over that of the dense values, `[items]`; 0 where both are zero, at most 1e6."""
    a, b = rows(dense), rows(other)
    error = np.linalg.norm(a - b, axis=1)
    scale = np.maximum(np.linalg.norm(a, axis=1), np.maximum(error, _TINY) / MAX_ERROR)
    return np.where(error == 0, 0.0, error / scale)
