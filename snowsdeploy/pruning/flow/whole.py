"""The whole model evaluated at once: only what is asked for, and what its derivatives need, is held."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor
from torch.fx import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from snowsdeploy.models.graph import as_tensor, evaluate
from snowsdeploy.models.program_graph import ProgramGraph


def evaluate_whole(
    graph: ProgramGraph,
    given: Mapping[Node, Any],
    wanted: Collection[Node],
    *,
    ends: Collection[Node] = (),
) -> dict[Node, Any]:
    """Run every node on some images.

    Args:
        graph: The program's graph.
        given: Placeholder -> tensor, the images among them.
        wanted: Nodes whose values are returned.
        ends: Nodes to which derivatives are wanted. Nothing in front of the first of them is held.

    Returns:
        The values of `wanted` and of `ends`.
    """
    values: dict[Node, Any] = dict(given)
    kept = {*wanted, *ends}
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivatives
        for node in graph.nodes:
            evaluate([node], values)
            if node in ends and not as_tensor(values[node]).requires_grad:
                values[node] = _leaf(values[node])
            for dead in graph.dead_after[node]:
                if dead not in kept:
                    del values[dead]
    return {node: values[node] for node in kept}


def _leaf(value: Any) -> Any:  # noqa: ANN401 - a normalisation returns a tuple whose first item is its output
    if isinstance(value, Tensor):
        return value.detach().requires_grad_()
    return (value[0].detach().requires_grad_(), *value[1:])
