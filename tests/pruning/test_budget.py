"""What is given up so that a run fits: nothing more than it must."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowsdeploy.errors import UsageError
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.storage import StorageKind
from snowsdeploy.pruning.forecast.budget import Budget, plan_memory
from snowsdeploy.pruning.forecast.needs import Needs, live_values, measure_sizes
from snowsdeploy.values import UnitMemory

UNIT = UnitMemory(layers=("a",), stored_per_image=100, graph_per_image=1000, fixed=5000)
PLENTY = 10**9


def plan(device: int, *, host: int | None = None, disk: int = PLENTY, images: int = 64, batch: int = 8) -> str:
    found = plan_memory(Needs([UNIT]), images=images, batch=batch, budget=Budget(device, 0, host, disk))
    assert found.peak_bytes <= device
    return f"{found.storage} {found.batch_size}"


def test_the_order_of_what_is_given_up() -> None:
    everything = round(1.1 * (64 * 100 + 8 * 1100 + 5000))
    least = round(1.1 * (5000 + 8 * 1200))
    assert plan(everything) == "memory 8"
    assert plan(everything - 1) == "disk 8"
    assert plan(everything - 1, disk=0) == "half 8"
    assert plan(least, disk=0) == "recompute 8"
    assert plan(least - 1, disk=0) == "half 4"  # which fits again with smaller batches
    assert plan(everything - 1, host=2 * 64 * 100) == "host 8"  # of a GPU
    assert plan(everything - 1, host=2 * 64 * 100 - 1) == "half 8"
    assert plan(everything - 1, host=0) == "disk 8"


def test_few_images_are_looked_at_whole_where_memory_is_small() -> None:
    budget = Budget(round(1.1 * 105_000), 40_000, None, PLENTY)
    found = plan_memory(Needs([UNIT], 10_000), images=8, batch=8, budget=budget)
    assert found.whole_images == 6
    assert found.peak_bytes == round(1.1 * 100_000)
    assert plan_memory(Needs([UNIT], 1), images=8, batch=8, budget=budget).whole_images == 16
    assert plan_memory(Needs([UNIT], PLENTY), images=8, batch=8, budget=budget).whole_images == 1


def test_what_cannot_fit_names_the_least() -> None:
    with pytest.raises(UsageError) as caught:
        plan(5000)
    assert caught.value.allowed is not None
    assert "batches of 1" in caught.value.allowed
    with pytest.raises(UsageError, match="too little room for the activations"):
        plan_memory(Needs([UNIT]), images=64, batch=8, budget=Budget(PLENTY, 0, None, disk=0), storage="disk")


@given(st.integers(7000, 50_000), st.integers(1, 64), st.sampled_from([None, 0, 4000, PLENTY]), st.integers(0, 9000))
def test_a_plan_stays_in_its_budget_and_more_never_costs_more(
    device: int, batch: int, host: int | None, disk: int
) -> None:
    def found(device: int) -> tuple[int, int]:
        plan = plan_memory(Needs([UNIT]), images=64, batch=batch, budget=Budget(device, 0, host, disk))
        assert plan.peak_bytes <= device
        return -plan.batch_size, get_args(StorageKind).index(plan.storage)

    assert found(device + 1000)[0] <= found(device)[0]  # batches do not shrink


def test_sizes_are_those_of_the_values(tiny: Program) -> None:
    graph = ProgramGraph(tiny)
    image = next(iter(tiny.exported.example_inputs[0]))[:1]  # type: ignore[index]
    sizes = measure_sizes(graph, image)
    assert sizes.values[graph.inputs[0]] == image.numel() * 4
    last = graph.outputs[0]
    assert sizes.values[last] == tiny.classes * 4
    assert sizes.state >= sum(t.numel() * 4 for t in tiny.state_dict.values() if t.is_floating_point())
    assert last in live_values(graph, len(graph.nodes))
    assert live_values(graph, 0) == []
