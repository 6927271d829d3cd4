"""How far a model's outputs are from the dense model's, and what a unit's pruning costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from snowsdeploy.tasks.any_output import MAX_ERROR
from snowsdeploy.tasks.base import AbstractTask, joined
from snowsdeploy.values import Distance

if TYPE_CHECKING:
    from torch import Tensor

Batches: TypeAlias = "Sequence[tuple[Tensor, ...]]"  # outputs of each batch


def distance(dense: Batches, other: Batches, task: AbstractTask) -> Distance:
    """The divergence of a task that has one (KL of logits), else the relative L2 error of all outputs.

    Args:
        dense: Outputs of the dense model, a tuple a batch.
        other: Of the other model.
        task: What they mean.
    """
    pairs = zip(dense, other, strict=True)
    found = joined([task.compare([o.numpy() for o in a], [o.numpy() for o in b]) for a, b in pairs])
    same, label = (float(found[task.same[0]].mean()), task.same[1]) if task.same else (None, "")
    if task.divergence:
        key, measure = task.divergence
        return Distance(value=max(float(found[key].mean()), 0.0), measure=measure, same=same, same_label=label)
    error = energy = 0.0
    for expected, actual in zip(dense, other, strict=True):
        for e, o in zip(expected, actual, strict=True):
            error += float((o.double() - e.double()).square().sum())
            energy += float(e.double().square().sum())
    value = (error / max(energy, error / MAX_ERROR**2)) ** 0.5 if error else 0.0
    return Distance(value=value, measure="relative error", same=same, same_label=label)
