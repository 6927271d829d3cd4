"""Carrying an order out on the weights: they are then in the order that the search found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.permutation.apply import permute_program
from snowsdeploy.permutation.groups import Group, find_groups
from snowsdeploy.permutation.search import Search, find_order, group_scores
from tests.permutation.nets import Residual, Transformer, make_double

P24 = Pattern(2, 4)
NETS = {"residual": Residual, "transformer": lambda: Transformer(fused=False)}


def kept(group: Group, state: dict[str, torch.Tensor]) -> float:
    """Share of the magnitude that a mask keeps, in the layers that read the group."""
    parts = [state[c.name].abs().index_select(1, torch.from_numpy(c.positions)) for c in group.consumers]
    total = sum(float(part.sum()) for part in parts)
    return sum(float((part * mask_by_score(part, P24)).sum()) for part in parts) / total


@pytest.mark.parametrize("net", NETS)
def test_a_mask_of_the_permuted_weights_keeps_what_the_search_found(net: str) -> None:
    torch.manual_seed(0)
    program = make_double(NETS[net]())
    graph = ProgramGraph(program)
    weights = [d.weight for d in decide_layers(graph, P24) if d.prunable and d.weight]
    groups = find_groups(graph, weights, P24.m).groups
    scores = {name: program.state_dict[name].abs() for name in weights}
    found = [find_order(group_scores(group, scores), P24, Search(kicks=2)) for group in groups]
    permuted = permute_program(program, list(zip(groups, (f.order for f in found), strict=True)))
    assert any(not np.array_equal(f.order, np.argsort(f.order)) for f in found)  # not its own inverse
    for group, best in zip(groups, found, strict=True):
        assert best.after > best.before
        assert kept(group, program.state_dict) == pytest.approx(best.before, rel=1e-12)
        assert kept(group, permuted.state_dict) == pytest.approx(best.after, rel=1e-12)


def test_the_channel_at_each_new_place_is_the_orders() -> None:
    torch.manual_seed(0)
    program = make_double(Residual())
    groups = find_groups(ProgramGraph(program), ["conv2.weight"], P24.m).groups
    (group,) = (g for g in groups if [c.name for c in g.consumers] == ["conv2.weight"])
    order = np.roll(np.arange(group.channels), 1)
    permuted = permute_program(program, [(group, order)]).state_dict
    before = program.state_dict
    assert torch.equal(permuted["conv2.weight"], before["conv2.weight"][:, order])
    assert torch.equal(permuted["conv1.weight"], before["conv1.weight"][order])
    assert torch.equal(permuted["conv1.bias"], before["conv1.bias"][order])
