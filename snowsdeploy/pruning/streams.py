"""The dense and the pruned model's activations side by side: where targets come from, and how far apart they end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.pruning.activations import Activations
from snowsdeploy.pruning.objective import Sample
from snowsdeploy.pruning.start import Weights
from snowsdeploy.pruning.windows import Window


@dataclass(frozen=True)
class Streams:
    """Activations side by side, and what they say of the model's output.

    Attributes:
        dense: Through the dense model.
        pruned: Through the model pruned so far.
        metrics: Node -> diagonal metric of an error there; a node that is not in it has the identity.
        held_back: How many of the last batches the solver does not see.
    """

    dense: Activations
    pruned: Activations
    metrics: Mapping[Node, Tensor]
    held_back: int = 0


def gather_samples(window: Window, weights: Weights, streams: Streams, share: float) -> list[Sample]:
    """What flows into the window on the pruned prefix, and what should come out.

    Args:
        window: The window.
        weights: The dense model's tensors for it.
        streams: Activations, advanced to the window.
        share: Of the true dense activations in the targets.
    """
    samples = []
    for batch in range(len(streams.pruned)):
        live = streams.pruned.live_ins(batch, window.live_ins)
        with torch.no_grad():
            dense = window(weights, streams.dense.live_ins(batch, window.live_ins)) if share > 0 else ()
            own = window(weights, live) if share < 1 else ()
        targets = dense or own
        if dense and own:
            targets = tuple(share * d + (1 - share) * o for d, o in zip(dense, own, strict=True))
        samples.append(Sample(live, targets))
    return samples


def output_error(streams: Streams, weights: Weights, *, held_back_only: bool = True) -> float:
    """Relative squared error of the model's output, layers not solved yet being dense.

    Args:
        streams: Activations at one position.
        weights: Tensors that replace those of `streams.pruned`.
        held_back_only: On the batches that no solve sees, or on all.
    """
    error = energy = 0.0
    first = len(streams.pruned) - streams.held_back if held_back_only else 0
    for batch in range(first, len(streams.pruned)):
        for y, t in zip(streams.pruned.finish(batch, weights), streams.dense.finish(batch, {}), strict=True):
            error += float((y - t).double().square().sum())
            energy += float(t.double().square().sum())
    return error / max(energy, torch.finfo(torch.float64).tiny)
