"""How much an error at a value of the graph costs at the model's output: the diagonal of J^T J.

J is the Jacobian of the dense model's output with respect to that value, for one image. An error `e` there moves the
output by `J e`, so the reconstruction error that matters is `e^T J^T J e`. Its diagonal, averaged over images, weighs
the terms of a window's objective: the output side of a Kronecker-factored curvature (Martens & Grosse 2015, section 3),
kept per element because a token or a channel that the output never reads must not compete with one that decides it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.batch import Batch
from snowsdeploy.distributed import all_sum, number
from snowsdeploy.models.graph import as_tensor
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.derivatives import ALL_DERIVATIVES, Derivatives
from snowsdeploy.pruning.flow.whole import evaluate_whole

WHOLE_IMAGES = 16  # a whole model's graph is held for so many images at once, where memory allows


def output_curvature(
    graph: ProgramGraph,
    state: Mapping[Node, Tensor],
    batches: Sequence[Batch],
    nodes: Sequence[Node],
    seed: int = 0,
    *,
    at_once: int = WHOLE_IMAGES,
    derivatives: Derivatives = ALL_DERIVATIVES,
) -> dict[Node, Tensor]:
    """Estimate the diagonal at each node by Hutchinson's probes: `E_u (J^T u)^2` with random signs u.

    Args:
        graph: The program's graph.
        state: Placeholder -> tensor of the dense model.
        batches: Images `[batch, C, H, W]`.
        nodes: Values that carry image data.
        seed: Of the signs.
        at_once: Images whose graph is held.
        derivatives: What the graph's operators lack.

    Returns:
        Node -> one item of it, with mean one: only the proportions matter to a relative error. A node that the output
        does not read has the identity; one in front of an operator without a derivative is left out.
    """
    opaque = derivatives.opaque(graph, nodes)
    nodes = [node for node in nodes if node not in opaque]
    if not nodes:
        return {}
    totals: dict[Node, Tensor] = {}
    generators = (torch.Generator().manual_seed(seed * 1_000_003 + number(own)) for own in range(len(batches)))
    pairs = zip(batches, generators, strict=True)
    dtypes: dict[Node, torch.dtype] = {}
    for images, generator in ((part, g) for batch, g in pairs for part in batch.split(at_once)):
        for node, square in _squares(graph, state, images, nodes, generator).items():
            dtypes[node] = square.dtype
            total = square.sum(graph.batch_axis(node), keepdim=True).double()
            totals[node] = totals[node] + total if node in totals else total
    return {node: _proportions(all_sum(total)).to(dtypes[node]) for node, total in totals.items()}


def _squares(
    graph: ProgramGraph,
    state: Mapping[Node, Tensor],
    images: Batch,
    nodes: Sequence[Node],
    generator: torch.Generator,
) -> dict[Node, Tensor]:
    """Squares of the gradients at each node along random signs; the graph is gone when this returns."""
    with torch.enable_grad():
        # outputs too are ends: one that depends on no node has derivatives of zero
        values = evaluate_whole(graph, {**state, **graph.given(images)}, (), ends={*nodes, *graph.real_outputs})
    outputs = [as_tensor(values[n]) for n in graph.real_outputs]
    signs = [torch.randint(0, 2, y.shape, generator=generator, device="cpu").to(y) * 2 - 1 for y in outputs]
    ends = [as_tensor(values[n]) for n in nodes]
    gradients = torch.autograd.grad(outputs, ends, signs, materialize_grads=True)
    return {node: gradient.square() for node, gradient in zip(nodes, gradients, strict=True)}


def _proportions(total: Tensor) -> Tensor:
    mean = float(total.mean())
    return total / mean if mean > 0 else torch.ones_like(total)
