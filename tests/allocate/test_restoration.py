"""Units put back to dense: the cached runs give what the whole program gives, and vectors go with their unit."""

from __future__ import annotations

import pytest
import torch

from snowsdeploy.allocate.restoration import SINGLE, leave_one_out, outputs_with, solved_units
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.prune import Plan, Solved, prune_program
from snowsdeploy.pruning.solve.reconstruct import Reconstruction
from snowsdeploy.solver.cg import ConjugateGradient
from snowsdeploy.solver.newton import NewtonCG
from snowsdeploy.values import layer_name
from tests.nets import NETS, make_program

BATCHES = [torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]
P24 = Pattern(2, 4)


def solve(program: Program, *, joint: bool) -> Solved:
    graph = ProgramGraph(program)
    weights = [d.weight for d in decide_layers(graph, P24) if d.prunable and d.weight]
    newton = NewtonCG(max_steps=1, cg=ConjugateGradient(max_iterations=4))
    plan = Plan(Reconstruction("block", 1.0, newton, free=True), joint=joint)
    return prune_program(program, BATCHES, weights, P24, plan, observer=NullObserver())


Case = tuple[Program, ProgramGraph, Solved]


@pytest.fixture(scope="module", params=[("cnn", True), ("attention", True), ("attention", False)])
def case(request: pytest.FixtureRequest) -> Case:
    """A net pruned jointly or layer by layer."""
    net, joint = request.param
    torch.manual_seed(0)
    program = make_program(NETS[net]())
    return program, ProgramGraph(program), solve(program, joint=joint)


def test_each_restoration_gives_what_the_whole_program_gives(case: Case) -> None:
    program, graph, pruned = case
    units = solved_units(graph, pruned.units, pruned.tensors)
    assert [unit.layers for unit in units] == [report.layers for report in pruned.units]
    dense, seen = program.state_dict, []
    for unit, layers, outputs in leave_one_out(graph, BATCHES, pruned.tensors, units):
        back = set(unit.tensors if layers == unit.layers else (f"{layers[0]}.weight",))
        changed = program.with_weights({n: dense[n] if n in back else v for n, v in pruned.tensors.items()})
        for images, found in zip(BATCHES, outputs, strict=True):
            torch.testing.assert_close(found, changed.run(images))
        seen.append(layers)
    single = {(name,) for unit in units for name in unit.layers if 1 < len(unit.layers) <= SINGLE}
    assert set(seen) == {unit.layers for unit in units} | single


def test_every_moved_vector_belongs_to_one_unit_and_all_back_is_dense(case: Case) -> None:
    program, graph, pruned = case
    units = solved_units(graph, pruned.units, pruned.tensors)
    owned = [name for unit in units for name in unit.tensors]
    assert sorted(owned) == sorted(pruned.tensors)
    assert any(unit.vectors for unit in units)
    for images, found in zip(BATCHES, outputs_with(graph, BATCHES, {}), strict=True):
        torch.testing.assert_close(found, program.run(images))


def test_outputs_with_replaced_tensors_are_those_of_the_program(case: Case) -> None:
    program, graph, pruned = case
    changed = program.with_weights(pruned.tensors)
    for images, found in zip(BATCHES, outputs_with(graph, BATCHES, pruned.tensors), strict=True):
        torch.testing.assert_close(found, changed.run(images))


def test_units_that_are_dense_again_are_left_out(case: Case) -> None:
    _, graph, pruned = case
    first = pruned.units[0].layers
    left = {n: v for n, v in pruned.tensors.items() if layer_name(n) not in first}
    rest = solved_units(graph, pruned.units, left)
    assert [unit.layers for unit in rest] == [report.layers for report in pruned.units[1:]]
