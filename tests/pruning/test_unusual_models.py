"""Graphs that a residual network does not have: branches side by side, several outputs, outputs without derivatives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.violations import count_violations
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.importance.loss import ProgramLoss
from snowsdeploy.pruning.importance.masks import Selection
from snowsdeploy.pruning.prune import Plan, prune_program
from snowsdeploy.pruning.schedule import block_end, make_schedule
from snowsdeploy.pruning.solve.reconstruct import Reconstruction
from snowsdeploy.selectors import make_selector
from snowsdeploy.solver.newton import NewtonCG
from tests.nets import make_program

PATTERN = Pattern(2, 4)
BATCHES = list(torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(2)).split(4))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class Net(nn.Module):
    """A stem, two residual blocks that `ends` connects, a classifier."""

    def __init__(self, ends: Callable[[Net, Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.one, self.two = nn.Conv2d(3, 8, 3), Residual(), Residual()
        self.tied = nn.Conv2d(8, 8, 1)
        self.head, self.other = nn.Linear(8, 5), nn.Linear(8, 4)
        self.ends = ends

    def forward(self, x: Tensor) -> object:
        return self.ends(self, x)

    def classes(self, features: Tensor) -> Tensor:
        y: Tensor = self.head(features.mean((2, 3)))
        return y


def branches(net: Net, x: Tensor) -> object:
    """Two residual blocks that do not see each other."""
    stem = F.relu(net.stem(x))
    return net.classes(torch.cat([net.one(stem)[:, :4], net.two(stem)[:, 4:]], 1))


def two_heads(net: Net, x: Tensor) -> object:
    stem = F.relu(net.stem(x))
    return net.classes(net.one(stem)), net.other(net.two(stem).mean((2, 3)))


def twice(net: Net, x: Tensor) -> object:
    """A weight used in front of the sum and behind it, where its second call reaches no sum."""
    stem = F.relu(net.stem(x))
    side = net.tied(stem)
    return net.classes(net.two(net.one(stem)) * net.tied(side[:, :, :1, :1]))


def with_image(net: Net, x: Tensor) -> object:
    return net.classes(net.two(net.one(F.relu(net.stem(x))))), x


def with_decision(net: Net, x: Tensor) -> object:
    y = net.classes(net.two(net.one(F.relu(net.stem(x)))))
    return y, y.argmax(1)


def with_stem(net: Net, x: Tensor) -> object:
    stem = F.relu(net.stem(x))
    return net.classes(net.two(net.one(stem))), stem


CASES = {f.__name__: f for f in (branches, two_heads, twice, with_image, with_decision, with_stem)}


@pytest.fixture(params=CASES)
def unusual(request: pytest.FixtureRequest) -> Program:
    return make_program(Net(CASES[request.param]))


def pruned_names(program: Program) -> list[str]:
    return [d.weight for d in decide_layers(ProgramGraph(program), PATTERN) if d.prunable and d.weight]


@pytest.mark.parametrize("horizon", ["block", "model"])
def test_every_graph_is_solved(unusual: Program, horizon: str) -> None:
    names = pruned_names(unusual)
    newton = NewtonCG(max_steps=1)
    method = Reconstruction(horizon=horizon, targets=1.0, newton=newton, free=True)  # type: ignore[arg-type]
    plan = Plan(method, layers=4, sensitivity=0.5, held_back=1, final=method)
    pruned = prune_program(unusual, BATCHES, names, PATTERN, plan, observer=NullObserver())
    assert all(count_violations(pruned.tensors[name], PATTERN)[1] == 0 for name in names)
    assert all(report.loss_final <= report.loss_initial for report in pruned.units)
    assert pruned.final is not None


@pytest.mark.parametrize("layers", [1, 4, 100])
def test_what_is_solved_together_reaches_the_unit_s_end(unusual: Program, layers: int) -> None:
    graph = ProgramGraph(unusual)
    names = pruned_names(unusual)
    units = make_schedule(graph, names, joint=True, layers=layers)
    assert [name for unit in units for name in unit.weights] == names
    for unit in units:
        window = Reconstruction(horizon="block", targets=1.0, newton=None).window(graph, unit)
        assert set(window.calls) <= set(window.nodes)


def test_blocks_side_by_side_are_units_of_their_own() -> None:
    graph = ProgramGraph(make_program(Net(branches)))
    names = ["one.first.weight", "one.second.weight", "two.first.weight", "two.second.weight"]
    units = make_schedule(graph, names, joint=True, layers=4)
    assert [unit.weights for unit in units] == [tuple(names[:2]), tuple(names[2:])]


def test_without_residual_sums_a_unit_has_the_layers_that_were_asked_for() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), *(nn.Conv2d(8, 8, 1) for _ in range(6)), nn.Flatten(), nn.Linear(288, 4))
    graph = ProgramGraph(make_program(plain))
    names = pruned_names(graph.program)
    assert [len(u.weights) for u in make_schedule(graph, names, joint=True, layers=1)] == [1] * 6
    assert [len(u.weights) for u in make_schedule(graph, names, joint=True, layers=4)] == [4, 2]


def test_a_sum_that_one_call_does_not_reach_is_no_end() -> None:
    graph = ProgramGraph(make_program(Net(twice)))
    assert block_end(graph, "one.first.weight") is not None
    assert block_end(graph, "tied.weight") is None


@pytest.mark.parametrize("selector", ["woodfisher", "obd", "qm"])
def test_layers_that_the_loss_does_not_read_have_no_gradient(selector: str) -> None:
    program = make_program(Net(two_heads))
    graph = ProgramGraph(program)
    labels = torch.randint(0, 5, (12,), generator=torch.Generator().manual_seed(1))
    unread = ["two.first.weight", "two.second.weight"]
    loss = ProgramLoss(graph, graph.state_values(), BATCHES, labels, names=unread)
    weights = {name: program.state_dict[name].detach() for name in unread}
    assert not any(value.any() for value in loss.gradient(weights).values())
    assert not any(value.any() for value in loss.curvature(weights).values())
    for piece in loss.gradients(weights, tuple(unread), 12, 1):
        assert not any(value.any() for value in piece.values())
    plan = Plan(Reconstruction(horizon="block", targets=1.0, newton=None), Selection(make_selector(selector, {})))
    names = pruned_names(program)
    pruned = prune_program(program, BATCHES, names, PATTERN, plan, observer=NullObserver(), labels=labels)
    assert set(pruned.tensors) >= set(names)
