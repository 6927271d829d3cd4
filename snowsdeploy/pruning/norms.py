"""Batch normalisation statistics after pruning, moved by as much as pruning moved the activations.

Re-estimating them is common practice after pruning. Here a running mean moves by the difference between the pruned and
the dense model's mean on the calibration images, and a variance by their ratio: with nothing pruned nothing changes,
however few the images are. The ratio is bounded, since the images may show a channel dead that is alive on others,
where a variance of almost nothing would scale it by hundreds.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.distributed import all_sum, sum_number
from snowsdeploy.models.graph import argument, base_name
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.activations import Activations

_DEAD = 1e-8  # of the largest variance: what rounding leaves of zero
_MOST = 100.0  # a scale changes tenfold at most
_NORMS = ("_native_batch_norm_legit_no_training", "batch_norm")


def reestimate_batch_norms(graph: ProgramGraph, dense: Activations, pruned: Activations) -> dict[str, Tensor]:
    """New running statistics, front to back, each on inputs that the earlier ones already changed.

    Args:
        graph: The program's graph.
        dense: In front of the first node, dense weights.
        pruned: In front of the first node, solved weights; has the new statistics from then on.

    Returns:
        Buffer name -> statistics `[C]`; empty when the model has no batch normalisation with statistics of its own.
    """
    found: dict[str, Tensor] = {}
    for node in graph.nodes:
        buffers = _statistics(graph, node)
        if buffers is None:
            continue
        for stream in (dense, pruned):
            stream.advance(node)
        (old_mean, old_var), (new_mean, new_var) = (_moments(s, node.args[0]) for s in (dense, pruned))
        mean, var = (pruned.value(b) for b in buffers)
        moved = (mean + (new_mean - old_mean).to(mean), var * _ratio(new_var, old_var).to(var))
        for buffer, value in zip(buffers, moved, strict=True):
            pruned.set_weight(buffer, value)
            found[graph.state_names[buffer]] = value
    return found


def _statistics(graph: ProgramGraph, node: Node) -> tuple[Node, Node] | None:
    if base_name(node) not in _NORMS:
        return None
    mean, var = argument(node, 3, "running_mean", None), argument(node, 4, "running_var", None)
    pair = [b for b in (mean, var) if isinstance(b, Node) and b in graph.state_names and len(b.users) == 1]
    return (pair[0], pair[1]) if len(pair) == 2 else None


def _ratio(new: Tensor, old: Tensor) -> Tensor:
    """By what variances change; one where a channel is dead on the images, before or after."""
    alive = (old > _DEAD * old.max()) & (new > _DEAD * new.max())
    return torch.where(alive, new / old, 1.0).clamp(1 / _MOST, _MOST)


def _moments(stream: Activations, source: object) -> tuple[Tensor, Tensor]:
    """Mean and variance over images and positions `[C]`, summed in float64."""
    assert isinstance(source, Node)
    total, square, count = torch.zeros((), device="cpu"), torch.zeros((), device="cpu"), 0.0
    for batch in range(len(stream)):
        rows = stream.live_ins(batch, [source])[source].double().movedim(1, 0).flatten(1)
        total, square, count = total + rows.sum(1), square + rows.square().sum(1), count + rows.shape[1]
    total, square, count = all_sum(total), all_sum(square), sum_number(count)
    mean = total / count
    return mean, (square / count - mean.square()).clamp_min(0)
