"""The rows of a layer's input, against the layer itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.gram import gram_matrix, input_rows
from tests.nets import make_program

LAYERS = {
    "plain": nn.Conv2d(3, 8, 3, bias=False),
    "strided": nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
    "dilated": nn.Conv2d(3, 8, 3, padding=2, dilation=2, bias=False),
    "1xN": nn.Conv2d(3, 8, (1, 5), padding=(0, 2), bias=False),
    "same": nn.Conv2d(3, 8, (4, 3), padding="same", bias=False),
    "valid": nn.Conv2d(3, 8, 3, padding="valid", bias=False),
    "linear": nn.Linear(8, 6, bias=False),
}


class Conv1d(nn.Module):
    """Rows of an image as a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(24, 4, 3, stride=2, padding=1, dilation=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x.flatten(1, 2))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # an even kernel is the point of the case
def test_rows_times_weight_is_the_layer(name: str) -> None:
    torch.manual_seed(0)
    graph = ProgramGraph(make_program(nn.Sequential(LAYERS[name])))
    (weight, calls), *_ = ((name, layer.calls) for name, layer in graph.layers.items())
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    check(graph, weight, calls[0], x, LAYERS[name].double())
    LAYERS[name].float()


def test_one_dimensional_convolution() -> None:
    module = Conv1d()
    graph = ProgramGraph(make_program(module))
    x = torch.randn(2, 24, 8, dtype=torch.float64)
    check(graph, "conv.weight", graph.layers["conv.weight"].calls[0], x, module.conv.double())


def check(graph: ProgramGraph, weight: str, call: torch.fx.Node, x: torch.Tensor, layer: nn.Module) -> None:
    matrix = graph.program.state_dict[weight].double().flatten(1)
    rows = input_rows(call, x)
    expected = layer(x)
    if expected.dim() > 2 and not isinstance(layer, nn.Linear):
        expected = expected.flatten(2).transpose(1, 2)
    torch.testing.assert_close((rows @ matrix.T).flatten(), expected.detach().flatten(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gram_matrix([(call, x), (call, x)]), 2 * rows.T @ rows)


@pytest.mark.parametrize("name", ["strided", "1xN", "linear"])
def test_a_metric_weighs_each_position_by_its_mean_over_channels(name: str) -> None:
    torch.manual_seed(0)
    graph = ProgramGraph(make_program(nn.Sequential(LAYERS[name])))
    calls = next(iter(graph.layers.values())).calls
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    output = LAYERS[name].double()(x)
    LAYERS[name].float()
    metric = torch.rand(1, *output.shape[1:], dtype=torch.float64)
    positions = metric.mean(-1 if name == "linear" else 1).expand(
        2, *output.shape[2:] if name != "linear" else output.shape[1:-1]
    )
    rows = input_rows(calls[0], x)
    expected = rows.T @ torch.diag(positions.flatten()) @ rows
    torch.testing.assert_close(gram_matrix([(calls[0], x)], {calls[0]: metric}), expected)
