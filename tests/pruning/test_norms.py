"""Running statistics against moments computed by hand, in float64."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.norms import reestimate_batch_norms


def test_a_mean_moves_by_the_difference_and_a_variance_by_the_ratio_of_the_batches_moments(tiny_cnn: Program) -> None:
    graph, state = ProgramGraph(tiny_cnn), {n: t.double() for n, t in tiny_cnn.state_dict.items()}
    images = torch.randn(7, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shift = torch.linspace(-2, 3, 8, dtype=torch.float64)
    pruned = {"stem.weight": 2 * state["stem.weight"], "stem.bias": state["stem.bias"] + shift}

    def stream(changed: dict[str, torch.Tensor]) -> Activations:
        values = {n: t.double() if t.is_floating_point() else t for n, t in graph.state_values().items()}
        return Activations(graph, list(images.split(3)), values | {graph.placeholder(n): t for n, t in changed.items()})

    after = stream(pruned)
    found = reestimate_batch_norms(graph, stream({}), after)
    before_x, after_x = (
        F.conv2d(images, s["stem.weight"], s["stem.bias"], padding=1).movedim(1, 0).flatten(1)
        for s in (state, state | pruned)
    )
    moved = state["norm.running_mean"] + after_x.mean(1) - before_x.mean(1)
    scaled = state["norm.running_var"] * after_x.var(1, correction=0) / before_x.var(1, correction=0)
    torch.testing.assert_close(found["norm.running_mean"], moved)
    torch.testing.assert_close(found["norm.running_var"], scaled)
    torch.testing.assert_close(after.value(graph.placeholder("norm.running_mean")), moved)

    # a shift alone moves the mean by itself and leaves the variance
    found = reestimate_batch_norms(graph, stream({}), stream({"stem.bias": state["stem.bias"] + shift}))
    torch.testing.assert_close(found["norm.running_mean"], state["norm.running_mean"] + shift)
    torch.testing.assert_close(found["norm.running_var"], state["norm.running_var"])
