"""Tiny nets with the shapes that exporters rewrite."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern


class Folded(nn.Module):
    """Convolutions with and without bias that absorb their BatchNorm; 1-D, strided, dilated, 1xN."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm0 = nn.BatchNorm2d(8)
        self.strided = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.dilated = nn.Conv2d(16, 8, 3, padding=2, dilation=2)
        self.norm2 = nn.BatchNorm2d(8)
        self.row = nn.Conv2d(8, 8, (1, 3), padding=(0, 1))
        self.point = nn.Conv2d(8, 12, 1)
        self.sequence = nn.Conv1d(12, 8, 3, padding=1)
        self.hidden = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm0(self.stem(x)).relu()
        x = self.norm1(self.strided(x)).relu()
        x = self.norm2(self.dilated(x)).relu()
        x = self.point(self.row(x).tanh()).flatten(2)
        return self.fc(self.hidden(self.sequence(x).mean(2)).relu())


class Twice(nn.Module):
    """Modules called twice, with BatchNorms that cannot be absorbed into a shared weight; 2-D and 3-D linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.mix = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv(self.stem(x))).relu()
        x = self.norm2(self.conv(x)).tanh()
        x = self.mix(self.mix(x.flatten(2).transpose(1, 2)).relu())
        return self.fc(self.mix(x.mean(1)))


class Equal(nn.Module):
    """Layers of equal weights: in sequence, on one input, with equal BatchNorms, as 3-D linears."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first, self.second = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.left, self.right = (nn.Conv2d(8, 8, 1) for _ in range(2))
        self.up, self.down = (nn.Linear(8, 8, bias=False) for _ in range(2))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm2(self.second(self.norm1(self.first(self.stem(x))).relu()))
        x = (self.left(x).relu() + self.right(x).tanh()).flatten(2).transpose(1, 2)
        return self.fc(self.down(self.up(x).relu()).mean(1))

    PAIRS = (("first", "second"), ("norm1", "norm2"), ("left", "right"), ("up", "down"))


class Ending(nn.Module):
    """A convolution and a free ending."""

    def __init__(self, ending: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.ending = ending

    def forward(self, x: Tensor) -> object:
        return self.ending(self.conv(x))


def prune(program: Program, pattern: Pattern) -> tuple[Program, list[str]]:
    """The program with magnitude masks applied, and the names of the pruned layers."""
    weights, names = {}, []
    for layer in decide_layers(ProgramGraph(program), pattern):
        if layer.prunable and layer.weight is not None:
            value = program.state_dict[layer.weight].detach()
            weights[layer.weight] = value * mask_by_score(value.abs(), pattern)
            names.append(layer.name)
    return program.with_weights(weights), names


def equal_weights(program: Program) -> Program:
    """An `Equal` whose pairs have the same parameters and statistics."""
    state, weights = program.state_dict, {}
    for one, other in Equal.PAIRS:
        for name in state:
            if name.startswith(f"{one}.") and state[name].is_floating_point():
                weights[name.replace(one, other, 1)] = state[name].detach()
    return program.with_weights(weights)


def images(batch: int, size: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))
