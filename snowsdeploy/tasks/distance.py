"""How far a model's outputs are from the dense model's, and what a unit's pruning costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from snowsdeploy.tasks.classify import agreement
from snowsdeploy.values import Distance

if TYPE_CHECKING:
    from torch import Tensor

Outputs: TypeAlias = "Sequence[tuple[Tensor, ...]]"  # a tuple a batch


def logits_of(outputs: Outputs) -> NDArray[np.float64] | None:
    """The first output as logits `[images, classes]`; None when it is none."""
    first = [batch[0] for batch in outputs]
    if any(o.dim() != 2 or o.shape[1] < 2 for o in first):
        return None
    return np.concatenate([o.double().numpy() for o in first])


def distance(dense: Outputs, other: Outputs) -> Distance:
    """Mean KL divergence of the logits in nats; relative L2 error of all outputs where there are no logits."""
    a, b = logits_of(dense), logits_of(other)
    if a is not None and b is not None:
        found = agreement(a, b)
        return Distance(value=found.kl, top1_agreement=found.top1.value)
    error = energy = 0.0
    for expected, actual in zip(dense, other, strict=True):
        for e, o in zip(expected, actual, strict=True):
            error += float((o - e).double().square().sum())
            energy += float(e.double().square().sum())
    return Distance(value=(error / max(energy, float(np.finfo(np.float64).tiny))) ** 0.5, top1_agreement=None)
