"""Mask selectors and solvers side by side on one model."""

from __future__ import annotations

from snowsdeploy.values.accuracy import Proportion
from snowsdeploy.values.base import Artifact


class ComparedRun(Artifact):
    """One selector under one solver; what was not reached is None.

    Attributes:
        top1: Of the sparse FP32 file; None without labels.
        agreement: Share of images on which it chooses the dense model's class.
        kl: Of its outputs from the dense model's, nats.
        objective: Mean of the solved units' final losses, each relative to its target's energy.
        coverage: Share of weights in layers with the pattern; None for unstructured patterns.
        seconds: Of the pruning stage.
        problem: Why there is no result; empty when there is one.
    """

    selector: str
    solver: str
    dense_top1: Proportion | None = None
    top1: Proportion | None = None
    agreement: float | None = None
    kl: float | None = None
    objective: float | None = None
    coverage: float | None = None
    seconds: float | None = None
    problem: str = ""


class Comparison(Artifact):
    """All runs, in the order in which they were asked for."""

    pattern: str
    runs: tuple[ComparedRun, ...]
