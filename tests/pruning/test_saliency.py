"""Scores of weights against what taking them out does."""

from __future__ import annotations

import pytest
import torch

from snowsdeploy.models.graph import evaluate
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.windows import as_tensor
from snowsdeploy.pruning.importance.saliency import weight_scores

WEIGHTS = ("twice.weight", "strided.weight")


@pytest.fixture
def batches() -> list[torch.Tensor]:
    return list(torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)).split(5))


def test_the_inputs_score_is_the_layers_own_error(tiny_cnn: Program, batches: list[torch.Tensor]) -> None:
    graph = ProgramGraph(tiny_cnn)
    score = weight_scores(graph, batches, ["strided.weight"], "inputs")["strided.weight"]
    (call,) = graph.layers["strided.weight"].calls
    values = {**graph.state_values(), **graph.given(torch.cat(batches))}
    evaluate(graph.nodes, values)
    x, weight = as_tensor(values[call.args[0]]), tiny_cnn.state_dict["strided.weight"]
    errors = []
    for index in ((0, 0, 0, 0), (3, 5, 0, 2), (11, 7, 0, 1)):
        alone = torch.zeros_like(weight)
        alone[index] = weight[index]
        output = torch.nn.functional.conv2d(x, alone, stride=2, padding=(0, 1))
        errors.append(float(output.double().square().sum()) / float(score[index]))
    assert errors == pytest.approx([errors[0]] * 3, rel=1e-4)
    assert float(score.sum()) == pytest.approx(1)


@pytest.mark.parametrize("score", ["magnitude", "inputs", "curvature"])
def test_scores_do_not_depend_on_the_batches(tiny: Program, batches: list[torch.Tensor], score: str) -> None:
    graph = ProgramGraph(tiny)
    names = [name for name in graph.layers if "depthwise" not in name]
    parts, whole = (weight_scores(graph, b, names, score) for b in (batches, [torch.cat(batches)]))
    for name in names:
        assert parts[name].shape == tiny.state_dict[name].shape
        assert (parts[name] >= 0).all()
        if score != "curvature":  # its random signs are drawn batch by batch
            assert torch.allclose(parts[name], whole[name], rtol=1e-4)


def test_curvature_scores_a_channel_that_the_output_does_not_read_as_nothing(
    tiny_cnn: Program, batches: list[torch.Tensor]
) -> None:
    head = tiny_cnn.state_dict["head.weight"].clone()
    depthwise = tiny_cnn.state_dict["depthwise.weight"].clone()
    head[:, 3], depthwise[3] = 0, 0
    graph = ProgramGraph(tiny_cnn.with_weights({"head.weight": head, "depthwise.weight": depthwise}))
    scores = weight_scores(graph, batches, ["dilated.weight"], "curvature")["dilated.weight"]
    assert float(scores[3].sum()) == 0
    assert float(scores[4].sum()) > 0
