"""The Kronecker preconditioner where it is exact."""

from __future__ import annotations

import torch
from torch import nn

from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.windows import cut_window
from snowsdeploy.pruning.solve.objective import Sample, Support, WindowObjective
from snowsdeploy.pruning.solve.preconditioner import make_preconditioner
from snowsdeploy.pruning.solve.start import factor_inputs
from tests.permutation.nets import make_double


class Sizes(nn.Module):
    """Two layers side by side, of 64 and of 4 positions, and a linear one of one position an image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.fine, self.coarse, self.flat = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 1, stride=4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.stem(x))
        return self.fine(x).mean((2, 3)) + self.coarse(x).mean((2, 3)) + self.flat(x.amax((2, 3)))


def test_kronecker_inverts_layers_of_different_spatial_size_where_the_output_is_their_own() -> None:
    """Each is a term of its own: the Gauss-Newton matrix is `2 scale X^T X` in every row, and every probe the same."""
    torch.manual_seed(0)
    program = make_double(Sizes())
    graph, names = ProgramGraph(program), ["fine.weight", "coarse.weight", "flat.weight"]
    window = cut_window(graph, names, 0)
    stream = Activations(graph, list(torch.randn(12, 3, 8, 8, dtype=torch.float64).split(5)), graph.state_values())
    stream.advance(window.calls[0])
    tensors = {p: stream.value(p) for p in window.weights}
    live = [stream.live_ins(batch, window.live_ins) for batch in range(len(stream))]
    samples = [Sample(values, window(tensors, values)) for values in live]
    support = Support(tuple(mask_by_score(t.abs(), Pattern(2, 4)) for t in tensors.values()))
    objective = WindowObjective(window, support, samples)
    x = support.gather(list(tensors.values()))
    factors = factor_inputs(window, tensors, support, samples, ridge=0.0, names=names)
    apply = make_preconditioner("kronecker", objective, x, factors)
    assert apply is not None
    v = torch.randn(x.shape, dtype=torch.float64)
    torch.testing.assert_close(apply(objective.curvature(x)(v)), v)
