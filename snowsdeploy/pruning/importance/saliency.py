"""What each weight of the dense model is worth to its layer's output, before anything is pruned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.batch import Batch
from snowsdeploy.distributed import all_sum
from snowsdeploy.models.graph import base_name, layer_input
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.gram import input_rows, require_finite
from snowsdeploy.pruning.flow.probe import probe_derivatives
from snowsdeploy.pruning.importance.sensitivity import WHOLE_IMAGES, output_curvature

Score = Literal["magnitude", "inputs", "curvature"]


def weight_scores(
    graph: ProgramGraph,
    batches: Sequence[Batch],
    weights: Sequence[str],
    score: Score,
    *,
    at_once: int = WHOLE_IMAGES,
) -> dict[str, Tensor]:
    """Score every weight by what taking it out alone would cost.

    Args:
        graph: The dense program's graph.
        batches: Calibration images `[batch, C, H, W]`.
        weights: Names of convolution and linear weights.
        score: `magnitude`: |w|. `inputs`: w^2 times the sum of its inputs' squares, the error of the layer's output.
            `curvature`: that error weighed by what it costs at the model's output, for each output channel.
        at_once: Images whose graph of the whole model is held for the curvature.

    Returns:
        Name -> `[K, C, ...]`, float64, not negative; each layer's sum to one except for `magnitude`.
    """
    state = graph.state_values()
    dense = {name: state[graph.placeholder(name)].double() for name in weights}
    if score == "magnitude":
        return {name: weight.abs() for name, weight in dense.items()}
    calls = [call for name in weights for call in graph.layers[name].calls]
    curvature: dict[Node, Tensor] = {}
    if score == "curvature":
        found = probe_derivatives(graph, batches[0], state)
        curvature = output_curvature(graph, state, batches, calls, at_once=at_once, derivatives=found)
    energies = _energies(graph, batches, calls, curvature)
    return {name: _normed(weight, [energies[c] for c in graph.layers[name].calls]) for name, weight in dense.items()}


def _normed(weight: Tensor, energies: Sequence[Tensor]) -> Tensor:
    energy = torch.stack([e.expand(len(weight), -1) for e in energies]).sum(0)
    score = weight.square() * energy.view(weight.shape)
    return score / score.sum().clamp_min(torch.finfo(score.dtype).tiny)


def _energies(
    graph: ProgramGraph, batches: Sequence[Batch], calls: Sequence[Node], curvature: dict[Node, Tensor]
) -> dict[Node, Tensor]:
    """Sums of squared inputs, `[1 or K, d]`, batch by batch: no activations of other batches are held."""
    totals: dict[Node, Tensor] = {}
    for images in batches:
        stream = Activations(graph, [images], graph.state_values())
        for call in sorted(calls, key=graph.order.__getitem__):
            stream.advance(call)
            source = layer_input(call)
            squares = input_rows(call, stream.live_ins(0, [source])[source]).square()
            energy = _weighed(call, squares, curvature[call]) if call in curvature else squares.sum(0, keepdim=True)
            totals[call] = totals[call] + energy.double() if call in totals else energy.double()
    for call, total in totals.items():
        require_finite(call, total)
    return {call: all_sum(total) for call, total in totals.items()}


def _weighed(call: Node, squares: Tensor, metric: Tensor) -> Tensor:
    """`[K, d]`: each output channel's curvature at each position times the squared inputs there."""
    if metric.dim() < 2:  # the output does not read this layer
        return squares.sum(0, keepdim=True)
    channels = metric.movedim(-1 if base_name(call) == "linear" else 1, 0).flatten(1)
    positions = channels.shape[1]
    return channels.to(squares) @ squares.view(-1, positions, squares.shape[1]).sum(0)
