"""Mask selectors and solvers side by side on one model."""

from __future__ import annotations

from snowsdeploy.values.accuracy import Accuracy
from snowsdeploy.values.base import Artifact
from snowsdeploy.values.numbers import Number, Seconds, Share


class ComparedRun(Artifact):
    """One selector under one solver; what was not reached is None.

    Attributes:
        accuracy: Of the sparse file.
        objective: Mean of the solved units' final losses, each relative to its target's energy.
        coverage: Share of weights in layers with the pattern; None for unstructured patterns.
        seconds: Of the pruning stage.
        problem: Why there is no result; empty when there is one.
    """

    selector: str
    solver: str
    accuracy: Accuracy | None = None
    objective: Number | None = None
    coverage: Share | None = None
    seconds: Seconds | None = None
    problem: str = ""


class Comparison(Artifact):
    """All runs, in the order in which they were asked for."""

    pattern: str
    runs: tuple[ComparedRun, ...]
