"""Hutchinson's probes against the exact diagonal, in float64."""

from __future__ import annotations

import torch

from snowsdeploy.models.graph import evaluate
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.windows import as_tensor
from snowsdeploy.pruning.importance.sensitivity import output_curvature
from tests.nets import TinyCNN
from tests.permutation.nets import make_double


def test_every_batch_has_a_probe_of_its_own_so_that_they_average_to_the_diagonal() -> None:
    """One image in many batches: the error falls by the root of their number, where one probe for all would keep it."""
    torch.manual_seed(0)
    graph = ProgramGraph(make_double(TinyCNN()))
    state, (node,) = graph.state_values(), graph.layers["strided.weight"].calls
    image = torch.randn(1, 3, 8, 8, dtype=torch.float64)

    values = {**state, **graph.given(image)}
    evaluate(graph.nodes, values)
    after = graph.nodes[graph.order[node] + 1 :]

    def rest(value: torch.Tensor) -> torch.Tensor:
        scope = {**values, node: value}
        evaluate(after, scope)
        return as_tensor(scope[graph.outputs[0]])

    jacobian = torch.autograd.functional.jacobian(rest, as_tensor(values[node]))
    exact = jacobian.square().sum((0, 1))
    exact = exact / exact.mean()

    def error(batches: list[torch.Tensor], at_once: int = 16) -> float:
        found = output_curvature(graph, state, batches, [node], at_once=at_once)[node]
        assert found.shape == exact.shape
        return float((found - exact).norm() / exact.norm())

    assert error([image]) > 0.4  # what a single probe is worth
    assert error([image] * 64) < 0.3
    assert error([image.expand(16, -1, -1, -1)] * 4, at_once=1) < 0.3  # and every image of a batch
