"""Which channels may move: every group found leaves the function as it was, and what is known to be free is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from snowsdeploy.errors import GraphError
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.permutation.apply import permute_program, require_same_function
from snowsdeploy.permutation.groups import Group, Groups, find_groups
from snowsdeploy.permutation.shape_rules import regroup
from snowsdeploy.values import layer_name
from tests.nets import TinyAttention, TinyCNN, make_program
from tests.permutation.nets import Residual, Transformer, make_double

NETS = {
    "residual": Residual,
    "transformer": lambda: Transformer(fused=False),
    "fused transformer": lambda: Transformer(fused=True),
    "cnn": TinyCNN,
    "attention": lambda: TinyAttention(fused=False),
}


def groups_of(program: Program, m: int = 4) -> Groups:
    graph = ProgramGraph(program)
    decisions = decide_layers(graph, Pattern(m // 2, m))
    return find_groups(graph, [d.weight for d in decisions if d.prunable and d.weight], m)


def shuffled(groups: Groups, seed: int = 0) -> list[tuple[Group, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [(group, rng.permutation(group.channels)) for group in groups.groups]


def layers(groups: Groups) -> list[tuple[int, set[str]]]:
    return [(g.channels, {layer_name(c.name) for c in g.consumers}) for g in groups.groups]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("m", [2, 4])
def test_any_order_of_a_group_leaves_the_function_as_it_was(net: str, m: int) -> None:
    torch.manual_seed(0)
    program = make_double(NETS[net]())
    groups = groups_of(program, m)
    permuted = permute_program(program, shuffled(groups))
    images = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    assert groups.groups
    for group in groups.groups:
        for member in group.members:
            assert not torch.equal(program.state_dict[member.name], permuted.state_dict[member.name])
    assert require_same_function(program, permuted, images, limit=1e-12) > 0


@pytest.mark.parametrize("net", NETS)
def test_moving_one_member_less_changes_the_function(net: str) -> None:
    torch.manual_seed(0)
    program = make_double(NETS[net]())
    images = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    for group, order in shuffled(groups_of(program)):
        part = Group(group.channels, group.members[1:], group.consumers)
        with pytest.raises(GraphError, match="changed the model's outputs"):
            require_same_function(program, permute_program(program, [(part, order)]), images)


def test_what_is_free_in_a_convolutional_net_is_found() -> None:
    groups = groups_of(make_double(Residual()))
    assert layers(groups) == [
        (8, {"conv1", "down", "squeeze", "side", "joined"}),  # the stream, and its padded shortcut in the next one
        (16, {"conv2"}),
        (16, {"squeeze", "side", "joined"}),  # what is left of the next one
        (8, {"gate"}),
        *[(8, {"joined"})] * 3,  # a grouped normalisation keeps eight each
    ]
    assert set(groups.refused) == {"last.weight"}
    assert "conv2d" in groups.refused["last.weight"]


@pytest.mark.parametrize("fused", [False, True])
def test_what_is_free_in_a_transformer_is_found(fused: bool) -> None:
    groups = groups_of(make_double(Transformer(fused=fused)))
    stream = {f"blocks.{i}.{name}" for i in range(2) for name in ("qkv", "fc1")}
    heads = [(8, {f"blocks.{i}.proj"}) for i in range(2) for _ in range(2)]
    hidden = [(24, {f"blocks.{i}.fc2"}) for i in range(2)]
    assert sorted(map(repr, layers(groups))) == sorted(map(repr, [(16, stream), *heads, *hidden]))
    assert not groups.refused
    members = {(m.name, m.axis) for m in groups.groups[0].members}
    assert {("token", 2), ("position", 2), ("patch.weight", 0), ("head.weight", 1), ("scale", 0)} <= members


class Fixed(nn.Module):
    """One operation between two layers."""

    def __init__(self, operation: object) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)
        self.operation = operation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(self.operation(self.stem(x))).mean((2, 3)))


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (lambda x: x.cumsum(1), "cumsum"),
        (lambda x: x.roll(1, 1), "roll"),
        (lambda x: x.flip(1), "flip"),
        (lambda x: x.unflatten(1, (2, 4)).softmax(1).flatten(1, 2), "too few channels"),
        (lambda x: x * torch.arange(8.0, dtype=x.dtype).view(8, 1, 1), "arange"),
        (lambda x: torch.cat([x[:, :4], x[:, :4]], 1), "twice"),
        (lambda x: torch.nn.functional.pad(x[:, 1:], (0, 0, 0, 0, 0, 1), mode="constant"), "too few channels"),
        (lambda x: x * x.transpose(1, 2), "conv2d"),
    ],
)
def test_what_reads_the_order_is_refused_with_its_name(operation: object, reason: str) -> None:
    groups = groups_of(make_double(Fixed(operation)))
    assert reason in groups.refused.get("conv.weight", "not refused")


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.softmax(1),
        lambda x: x.roll(1, 2),
        lambda x: x - x.amax(1, keepdim=True),
        lambda x: x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True),
        lambda x: x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2),  # channels shuffled, all of them whole
        lambda x: torch.cat(x.split(4, 1)[::-1], 1),
        lambda x: x.flatten(2).transpose(1, 2).unflatten(1, (8, 8)).permute(0, 3, 1, 2),
    ],
)
@pytest.mark.parametrize("m", [2])
def test_what_moves_whole_channels_is_not(operation: object, m: int) -> None:
    torch.manual_seed(0)
    program = make_double(Fixed(operation))
    groups = groups_of(program, m)
    assert not groups.refused
    images = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    assert require_same_function(program, permute_program(program, shuffled(groups)), images, limit=1e-12) >= 0


def test_channels_stay_in_whole_groups_of_m() -> None:
    for group in groups_of(make_double(Residual())).groups:
        for consumer in group.consumers:
            assert (consumer.positions.reshape(-1, 4) // 4 == consumer.positions.reshape(-1, 4)[:, :1] // 4).all()


@pytest.mark.parametrize(
    ("before", "after", "runs"),
    [
        ((7, 8, 49), (7, 8, 7, 7), [((0,), (0,)), ((1,), (1,)), ((2,), (2, 3))]),
        ((7, 3, 2, 4), (7, 3, 8), [((0,), (0,)), ((1,), (1,)), ((2, 3), (2,))]),
        ((7, 8, 1, 1), (7, 8), [((0,), (0,)), ((1,), (1,)), ((2,), ()), ((3,), ())]),
        ((6, 4), (4, 6), [((0, 1), (0, 1))]),
        ((5,), (1, 5), [((0,), (0, 1))]),
    ],
)
def test_axes_of_a_view_are_matched(before, after, runs) -> None:
    assert [(tuple(a), tuple(b)) for a, b in regroup(before, after)] == runs


def test_rounding_beyond_the_limit_is_looked_at_in_double_precision() -> None:
    torch.manual_seed(0)
    program = make_program(TinyCNN())
    images = torch.randn(5, 3, 8, 8)
    groups = groups_of(program)
    moved = permute_program(program, shuffled(groups))
    assert require_same_function(program, moved, images, limit=0.0) < 1e-5
    (group, order), *_ = shuffled(groups)
    part = permute_program(program, [(Group(group.channels, group.members[1:], group.consumers), order)])
    with pytest.raises(GraphError, match="changed the model's outputs"):
        require_same_function(program, part, images, limit=0.0)
