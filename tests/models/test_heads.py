"""Which layers are heads, which read the input, and what else multiplies by weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.models.trace import trace
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.values import Preprocessing, SourceInfo

SOURCE = SourceInfo(source="test", format="module")
RGB = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)


class Net(nn.Module):
    """A body of one convolution and two more, joined in some way."""

    def __init__(self, join: Callable[[Net, Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.a, self.b = (nn.Conv2d(i, 8, 3, padding=1) for i in (3, 8, 8))
        self.rgb, self.join = nn.Conv2d(8, 3, 1), join

    def forward(self, x: Tensor) -> object:
        self.x = x
        return self.join(self, self.stem(x).relu())


JOINS: dict[str, tuple[Callable[[Net, Tensor], object], set[str]]] = {
    "one head": (lambda n, y: n.b(n.a(y).relu()), {"b"}),
    "sigmoid": (lambda n, y: n.b(n.a(y).relu()).sigmoid(), {"b"}),
    "softmax": (lambda n, y: n.b(n.a(y).relu()).softmax(1), {"b"}),
    "log sigmoid of a mean": (lambda n, y: nn.functional.logsigmoid(n.b(n.a(y).relu()).mean((2, 3))), {"b"}),
    "tanh": (lambda n, y: n.b(n.a(y).relu()).tanh(), set()),
    "residual": (lambda n, y: y + n.b(n.a(y).relu()), set()),
    "residual around a head": (lambda n, y: (y + n.b(y).relu(), n.a(y)), {"a"}),
    "two heads": (lambda n, y: (n.a(y), n.b(y)), {"a", "b"}),
    "a sum of heads": (lambda n, y: n.a(y) + n.b(y), {"a", "b"}),
    "a residual from the input": (lambda n, y: n.x + n.rgb(n.a(y).relu()), {"rgb"}),
    "a gate": (lambda n, y: n.a(y) * n.b(y).sigmoid(), set()),
    "a product with a number": (lambda n, y: n.b(n.a(y).relu()) * 2.0, {"b"}),
    "attention": (lambda n, y: n.a(y).flatten(2) @ n.b(y).flatten(2).transpose(1, 2), set()),
}


@pytest.mark.parametrize("join", JOINS)
def test_heads_are_what_gives_an_output_without_more_body(join: str) -> None:
    how, heads = JOINS[join]
    graph = ProgramGraph(trace(Net(how), RGB, SOURCE))
    names = {call: layer.name for layer in graph.layers.values() for call in layer.calls}
    assert {names[node] for node in graph.classifiers()} == heads
    assert {names[node] for node in graph.stems()} == {"stem"}


class Others(nn.Module):
    """Products that no sparse kernel runs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.narrow, self.wide = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.up, self.lstm = nn.ConvTranspose2d(8, 8, 2, stride=2), nn.LSTM(8, 8, batch_first=True)
        self.mix, self.body, self.head = nn.Parameter(torch.randn(8, 8)), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.wide(self.narrow(self.conv(x)))).flatten(2).transpose(1, 2)
        y = torch.einsum("bnc,cd->bnd", self.lstm(y)[0], self.mix)
        return self.head(self.body(y).relu().mean(1))


def test_what_stays_dense_is_listed_with_why() -> None:
    decisions = decide_layers(ProgramGraph(trace(Others(), RGB, SOURCE)), Pattern(2, 4))
    reasons = {d.name: d.reason for d in decisions}
    assert reasons["conv"] == "stem (3 input channels)"
    assert reasons["narrow"] == reasons["body"] == ""
    assert reasons["wide"] == "only 4 input channels"
    assert reasons["up"] == "transposed convolution"
    assert {reasons[n] for n in reasons if n.startswith("lstm")} == {"recurrent layer"}
    assert reasons["mix"] == "a product outside a linear layer"
    assert reasons["head"] == "classifier"
