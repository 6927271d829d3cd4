"""Which layers are pruned, decided on the graph."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snowsdeploy.errors import UsageError
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from tests.nets import make_program


def reasons(program: Program, **options: tuple[str, ...]) -> dict[str, str]:
    return {d.name: d.reason for d in decide_layers(ProgramGraph(program), Pattern(2, 4), **options)}


def test_each_layer_of_the_cnn_has_its_reason(tiny_cnn: Program) -> None:
    assert reasons(tiny_cnn) == {
        "stem": "stem (3 input channels)",
        "twice": "",
        "strided": "",
        "dilated": "",
        "depthwise": "depthwise convolution",
        "head": "classifier",
    }


def test_calls_are_counted(tiny_cnn: Program) -> None:
    decisions = decide_layers(ProgramGraph(tiny_cnn), Pattern(2, 4))
    assert {d.name: d.calls for d in decisions}["twice"] == 2


def test_include_and_exclude(tiny_cnn: Program) -> None:
    assert reasons(tiny_cnn, exclude=("tw*",))["twice"] == "excluded by --exclude"
    only = reasons(tiny_cnn, include=("strided", "head"))
    assert [name for name, reason in only.items() if not reason] == ["strided", "head"]
    assert only["twice"] == "not in --include"


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_is_an_error(tiny_cnn: Program, option: str) -> None:
    with pytest.raises(UsageError, match=f"--{option} matches no layer") as caught:
        reasons(tiny_cnn, **{option: ("layer9*",)})
    assert caught.value.seen == "layer9*"
    assert "strided" in (caught.value.allowed or "")


def test_nothing_left_to_prune_is_an_error() -> None:
    with pytest.raises(UsageError, match="no layer of the model can be pruned"):
        reasons(make_program(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5))))


class Odd(nn.Module):
    """Grouped, channels that do not divide, a weight that depends on the input, one shared with another operator."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.to_six = nn.Conv2d(8, 6, 1)
        self.from_six = nn.Conv2d(6, 8, 1)
        self.standardised = nn.Parameter(torch.randn(8, 8, 1, 1))
        self.shared = nn.Linear(8, 8, bias=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.from_six(torch.relu(self.to_six(self.grouped(self.stem(x))))))
        x = torch.relu(nn.functional.conv2d(x, self.standardised * x.mean()))
        y = torch.relu(self.shared(x.mean((2, 3))))
        return self.head(torch.relu(y @ self.shared.weight.T))


def test_every_other_reason() -> None:
    found = reasons(make_program(Odd()))
    assert found["grouped"] == "grouped convolution (2 groups)"
    assert found["from_six"] == "6 input channels, not a multiple of 4"
    assert found["to_six"] == ""
    assert "its weight is computed in the graph" in found.values()
    assert found["shared"].startswith("weight also used by")
