"""How far a model's outputs are from the dense model's, and what a unit's pruning costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from snowsdeploy.tasks.base import AbstractTask, joined
from snowsdeploy.values import SHARE, Distance

if TYPE_CHECKING:
    from torch import Tensor

Batches: TypeAlias = "Sequence[tuple[Tensor, ...]]"  # outputs of each batch
RELATIVE_ERROR = "relative error"


def distance(dense: Batches, other: Batches, task: AbstractTask) -> Distance:
    """The divergence of a task that has one (KL of logits), else the relative L2 error of all outputs.

    Args:
        dense: Outputs of the dense model, a tuple a batch.
        other: Of the other model.
        task: What they mean.
    """
    measures = task.agreement(
        joined(
            [task.compare([o.numpy() for o in a], [o.numpy() for o in b]) for a, b in zip(dense, other, strict=True)]
        )
    )
    same = next((m for m in measures if m.unit == SHARE), None)
    words = None if same is None else f"{same.label} {same.measured.value:.2%}"
    if (divergence := next((m for m in measures if m.unit == "nats"), None)) is not None:
        return Distance(value=divergence.measured.value, measure=divergence.label, alike=words)
    error = energy = 0.0
    for expected, actual in zip(dense, other, strict=True):
        for e, o in zip(expected, actual, strict=True):
            error += float((o.double() - e.double()).square().sum())
            energy += float(e.double().square().sum())
    value = (error / max(energy, float(np.finfo(np.float64).tiny))) ** 0.5
    return Distance(value=value, measure=RELATIVE_ERROR, alike=words)
