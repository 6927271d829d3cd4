"""What is held is counted exactly, and only what is needed is held."""

from __future__ import annotations

import pytest
import torch

from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.forecast.footprint import Footprint, growth
from snowsdeploy.pruning.importance.sensitivity import output_curvature
from tests.nets import NETS, make_program

FLOATS = 1000


def test_storages_count_once_and_until_they_are_freed() -> None:
    before = torch.ones(FLOATS)
    footprint = Footprint()
    with footprint:
        first = torch.zeros(FLOATS)
        view = first.view(10, -1)
        del first
        second = view + 1  # the view keeps its storage
        del view, second
        before.add_(1)  # nothing new
        third = before * 2
        del third
    assert footprint.peak == 2 * 4 * FLOATS


def test_what_a_graph_saves_is_held_until_the_backward_pass() -> None:
    x = torch.ones(FLOATS, requires_grad=True)
    footprint = Footprint()
    with footprint:
        y = (x * 2).exp().sin().sum()  # exp saves its result, sin its input: one storage; x * 2 goes
        held = footprint.peak
        del y
    assert held == 2 * 4 * FLOATS + 4


def test_what_images_cost_does_not_see_what_they_share() -> None:
    weight = torch.ones(FLOATS, 8)
    assert growth(lambda x: (weight * 3, x @ weight.T), torch.ones(1, 8)) == 4 * FLOATS


@pytest.mark.parametrize("net", ["cnn", "attention"])
def test_the_graph_of_one_slice_of_images_is_gone_before_the_next(net: str) -> None:
    graph = ProgramGraph(make_program(NETS[net]()))
    nodes = [layer.calls[0] for layer in graph.layers.values()]
    peaks = []
    for slices in (1, 4):
        images, footprint = torch.randn(4 * slices, 3, 8, 8), Footprint()
        with footprint:
            output_curvature(graph, graph.state_values(), [images], nodes, at_once=4)
        peaks.append(footprint.peak)
    sums = sum(8 * node.meta["val"][0].numel() for node in nodes)  # of the squares, in float64, which stay
    assert peaks[1] <= peaks[0] + 2 * sums


def test_nothing_is_held_in_front_of_the_first_node_that_is_asked_for(tiny: Program) -> None:
    graph = ProgramGraph(tiny)
    calls = sorted((call for layer in graph.layers.values() for call in layer.calls), key=graph.order.__getitem__)
    image = next(iter(tiny.exported.example_inputs[0]))[:1]  # type: ignore[index]

    def bytes_from(first: int) -> int:
        return growth(lambda images: output_curvature(graph, graph.state_values(), [images], calls[first:]), image)

    assert bytes_from(len(calls) - 1) < bytes_from(0)
