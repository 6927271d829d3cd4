"""Operators without a forward derivative, without a second one and without any: probed, worked around, and said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snowsdeploy.errors import GraphError
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.violations import count_violations
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.derivatives import Derivatives, operator_name, operator_names
from snowsdeploy.pruning.flow.probe import probe_derivatives
from snowsdeploy.pruning.flow.windows import cut_window
from snowsdeploy.pruning.forecast.needs import measure_needs
from snowsdeploy.pruning.importance.loss import ProgramLoss
from snowsdeploy.pruning.importance.sensitivity import output_curvature
from snowsdeploy.pruning.prune import Plan, Solved, prune_program
from snowsdeploy.pruning.schedule import make_schedule
from snowsdeploy.pruning.solve.objective import Sample, Support, WindowObjective
from snowsdeploy.pruning.solve.products import Products
from snowsdeploy.pruning.solve.reconstruct import Reconstruction
from snowsdeploy.solver.newton import NewtonCG
from tests.nets import make_program

PATTERN = Pattern(2, 4)
BATCHES = list(torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(2)).split(4))


@torch.library.custom_op("snowstest::wall", mutates_args=())
def wall(x: Tensor) -> Tensor:
    """Without any derivative."""
    return x.clamp(min=0) ** 2


@torch.library.custom_op("snowstest::slope", mutates_args=())
def slope(x: Tensor) -> Tensor:
    """The gradient of what `once` computes, itself without a derivative."""
    return 2 * x.clamp(min=0)


@torch.library.custom_op("snowstest::once", mutates_args=())
def once(x: Tensor) -> Tensor:
    """With a gradient, and nothing beyond."""
    return x.clamp(min=0) ** 2


@torch.library.custom_op("snowstest::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    """With a gradient that has derivatives of its own."""
    return x.clamp(min=0) ** 2


@torch.library.custom_op("snowstest::zero", mutates_args=())
def zero(x: Tensor) -> Tensor:
    """Its gradient is silently cut off from the derivative by u."""
    return x.clamp(min=0) ** 2


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


once.register_autograd(lambda ctx, u: wall(u * slope(ctx.saved_tensors[0])), setup_context=_save)
twice.register_autograd(lambda ctx, u: u * 2 * ctx.saved_tensors[0].clamp(min=0), setup_context=_save)
zero.register_autograd(lambda ctx, u: (u * 2 * ctx.saved_tensors[0].clamp(min=0)).detach(), setup_context=_save)
for operator in (wall, slope, once, twice, zero):
    operator.register_fake(torch.empty_like)

_LIBRARY = torch.library.Library("snowstest", "FRAGMENT")
_LIBRARY.define("raw(Tensor x) -> Tensor")
_LIBRARY.impl("raw", lambda x: torch.from_numpy(x.detach().numpy().clip(0) ** 2), "CPU")
_LIBRARY.impl("raw", torch.empty_like, "Meta")


def sampled(net: Net, x: Tensor) -> Tensor:
    theta = net.where(x.mean((2, 3))).view(-1, 2, 3)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def recurrent(net: Net, x: Tensor) -> Tensor:
    y: Tensor = net.rnn(x.flatten(2).transpose(1, 2))[0]
    return y.transpose(1, 2).reshape(x.shape)


def distances(net: Net, x: Tensor) -> Tensor:
    mode = "donot_use_mm_for_euclid_dist"  # others depend on how many items there are
    return torch.cdist(x.flatten(2).flatten(0, 1), net.codes, compute_mode=mode).view(x.shape)


def raw(net: Net, x: Tensor) -> Tensor:
    y: Tensor = torch.ops.snowstest.raw(x)
    return y


class Net(nn.Module):
    """Two convolutions, something that may have no derivative, two more and a classifier."""

    def __init__(self, middle: Callable[[Net, Tensor], Tensor], *, direct: bool = False, end: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3)
        self.a, self.b, self.c, self.d = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.where, self.rnn, self.head = nn.Linear(8, 6), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 5)
        self.codes = nn.Parameter(torch.randn(36, 36))
        self.middle, self.direct, self.end = middle, direct, end

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(F.relu(self.a(F.relu(self.stem(x)))))
        x = x if self.direct else F.gelu(x)
        x = x if self.end else self.middle(self, x)
        y: Tensor = self.head(self.d(F.relu(self.c(x))).mean((2, 3)))
        return self.middle(self, y) if self.end else y


def by(operator: Callable[[Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    return lambda net, x: operator(x)


WALL, ONCE, TWICE, ZERO, TANH = map(by, (wall, once, twice, zero, torch.tanh))


def names_of(program: Program) -> list[str]:
    found = [d.weight for d in decide_layers(ProgramGraph(program), PATTERN) if d.prunable and d.weight]
    return [name for name in found if name.split(".")[0] in "abcd"]


def solve(program: Program, horizon: object = "block", **changes: Any) -> Solved:
    newton = NewtonCG(max_steps=1)
    method = Reconstruction(horizon=horizon, targets=1.0, newton=newton, free=True)  # type: ignore[arg-type]
    plan = replace(Plan(method, layers=4, sensitivity=0.5, held_back=1, final=method), **changes)
    return prune_program(program, BATCHES, names_of(program), PATTERN, plan, observer=NullObserver())


def probed(net: Net) -> tuple[ProgramGraph, Derivatives]:
    graph = ProgramGraph(make_program(net))
    return graph, probe_derivatives(graph, BATCHES[0])


LACKS = {
    sampled: ("grid_sampler", {"forward"}),
    recurrent: ("lstm", {"forward"}),
    distances: ("cdist", {"forward"}),
    TWICE: ("snowstest::twice", {"forward"}),
    ONCE: ("snowstest::once", {"forward", "reverse", "second"}),
    WALL: ("snowstest::wall", {"gradient", "forward", "reverse", "second"}),
    raw: ("snowstest::raw", {"gradient", "forward", "reverse", "second"}),
}


@pytest.mark.parametrize("middle", LACKS)
def test_the_probe_names_what_is_lacking(middle: Callable[[Net, Tensor], Tensor]) -> None:
    _, found = probed(Net(middle))
    assert {operator_name(node): set(kinds) for node, kinds in found.lacks.items()} == dict([LACKS[middle]])


def test_a_derivative_that_is_silently_zero_counts_as_none() -> None:
    _, found = probed(Net(ZERO))
    assert {"forward", "reverse"} <= set(next(iter(found.lacks.values())))


def test_usual_operators_lack_nothing(tiny: Program) -> None:
    assert not probe_derivatives(ProgramGraph(tiny), BATCHES[0]).lacks


def objective(program: Program, name: str, operations: int, dtype: torch.dtype) -> tuple[WindowObjective, Tensor]:
    graph = ProgramGraph(program)
    window = cut_window(graph, [name], operations, free=True)
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in graph.state_values().items()}
    stream = Activations(graph, [BATCHES[0][:2].to(dtype)], state)
    stream.advance(window.calls[0])
    weights, live = {p: state[p] for p in window.weights}, stream.live_ins(0, window.live_ins)
    masks = [
        mask_by_score(w.abs(), PATTERN) if w.dim() > 1 else torch.ones_like(w, dtype=torch.bool)
        for w in weights.values()
    ]
    support = Support(tuple(masks))
    sample = Sample(live, tuple(1.1 * y + 0.1 for y in window(weights, live)))
    return WindowObjective(window, support, [sample]), support.gather(list(weights.values()))


@pytest.mark.parametrize("middle", [sampled, distances, TWICE, TANH])
def test_two_reverse_passes_give_the_dense_gauss_newton_matrix(middle: Callable[[Net, Tensor], Tensor]) -> None:
    exact, x = objective(make_program(Net(middle)), "b.weight", 4, torch.float64)
    assert any("sampler" in str(n) for n in exact.window.nodes) == (middle is sampled)

    def outputs(vector: Tensor) -> Tensor:
        tensors = dict(zip(exact.window.weights, exact.support.scatter(vector), strict=True))
        ys = exact.window(tensors, exact.samples[0].live_ins)
        return torch.cat([y.flatten() * s**0.5 for y, s in zip(ys, exact.scales, strict=True)])

    jacobian = torch.autograd.functional.jacobian(outputs, x)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    found = replace(exact, passes="reverse").curvature(x)(v)
    torch.testing.assert_close(found, 2 * jacobian.T @ (jacobian @ v), rtol=1e-9, atol=1e-12)


def test_two_reverse_passes_equal_forward_mode(tiny: Program) -> None:
    name = list(ProgramGraph(tiny).layers)[1]
    exact, x = objective(tiny, name, 3, torch.float64)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    found = replace(exact, passes="reverse").curvature(x)(v)
    torch.testing.assert_close(found, exact.curvature(x)(v), rtol=1e-9, atol=1e-14)


def test_a_fused_recurrent_kernel_agrees_with_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fused, x = objective(make_program(Net(recurrent)), "b.weight", 4, torch.float32)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    found = replace(fused, passes="reverse").curvature(x)(v)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # the others' operators have forward derivatives
    expected = fused.curvature(x)(v)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("options", [Products("bfloat16"), Products(compiler="eager")])
def test_reduced_and_compiled_products_stay_near_without_forward_mode(options: Products) -> None:
    exact, x = objective(make_program(Net(sampled)), "b.weight", 4, torch.float32)
    exact = replace(exact, passes="reverse")
    found, _ = options.apply(exact, x)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    expected = exact.curvature(x)(v)
    assert float((found.curvature(x)(v) - expected).norm() / expected.norm()) < 0.05


PLACES = [(False, False), (True, False), (False, True), (True, True)]  # directly behind a layer, at the end
GRAPHS = [
    *((sampled, direct, False, horizon) for direct in (False, True) for horizon in (3, "block", "model")),
    *(
        (middle, direct, end, horizon)
        for middle, horizons in ((ONCE, (0, 1, 3, "block")), (WALL, (1, 3, "block", 0)), (raw, (3, "block", 0, 1)))
        for (direct, end), horizon in zip(PLACES, horizons, strict=True)
    ),
    *((middle, False, end, "model") for middle in (ONCE, WALL, raw) for end in (False, True)),
]


@pytest.mark.parametrize(("middle", "direct", "end", "horizon"), GRAPHS)
def test_every_graph_is_solved(
    middle: Callable[[Net, Tensor], Tensor], horizon: object, direct: bool, end: bool
) -> None:
    program = make_program(Net(middle, direct=direct, end=end))
    solved = solve(program, horizon)
    assert all(count_violations(solved.tensors[name], PATTERN)[1] == 0 for name in names_of(program))
    assert all(report.loss_final <= report.loss_initial for report in solved.units)
    lacking = LACKS[middle][0]
    if middle is sampled and horizon in ("block", "model", 3):
        assert any(f"products by two reverse passes: {lacking}" in note for note in solved.notes)
    if middle is not sampled and horizon == "model":
        assert any(f"window ends before {lacking}, which has " in note for note in solved.notes)
    assert (solved.final is None) == any(note.startswith("no final pass over all layers") for note in solved.notes)
    assert (solved.final is None) == (middle is not sampled and not end)


def test_layers_on_both_sides_are_units_of_their_own() -> None:
    graph, found = probed(Net(WALL))
    names = names_of(graph.program)
    assert [u.weights for u in make_schedule(graph, names, joint=True, layers=4)] == [tuple(names)]
    parts = make_schedule(graph, names, joint=True, layers=4, walls=found.blocking("gauss-newton"))
    assert [u.weights for u in parts] == [tuple(names[:2]), tuple(names[2:])]


def test_a_layer_directly_in_front_has_exact_least_squares() -> None:
    program = make_program(Net(WALL, direct=True))
    found = solve(program, joint=False, sensitivity=0.0, final=None)
    alone = Reconstruction(horizon=0, targets=1.0, newton=None)
    expected = prune_program(
        program, BATCHES, ["b.weight"], PATTERN, Plan(alone, held_back=1), observer=NullObserver()
    ).tensors["b.weight"]
    only = prune_program(
        program,
        BATCHES,
        ["b.weight"],
        PATTERN,
        Plan(Reconstruction(horizon=3, targets=1.0, newton=NewtonCG()), held_back=1),
        observer=NullObserver(),
    )
    assert torch.equal(only.tensors["b.weight"], expected)
    assert only.units[0].derivatives.startswith("exact least squares alone in front of snowstest::wall")
    assert [report.operations == 0 for report in found.units] == [False, True, False, False]


def test_a_hessian_ends_where_there_is_no_second_derivative() -> None:
    method = Reconstruction(horizon=3, targets=1.0, newton=NewtonCG(max_steps=1), curvature="hessian")
    solved = solve(make_program(Net(ONCE)), method=method, final=None, joint=False)
    assert any("which has no second derivative" in report.derivatives for report in solved.units)


def test_curvature_is_that_of_the_model_behind_the_operator() -> None:
    graphs = [ProgramGraph(make_program(Net(by(op)))) for op in (wall, lambda x: x.clamp(min=0) ** 2)]
    found, expected = (
        {
            name: value[graph.layers[name].calls[0]]
            for name in names_of(graph.program)
            if graph.layers[name].calls[0] in value
        }
        for graph in graphs
        for value in [
            output_curvature(
                graph,
                graph.state_values(),
                BATCHES,
                [graph.layers[n].calls[0] for n in names_of(graph.program)],
                derivatives=probe_derivatives(graph, BATCHES[0]),
            )
        ]
    )
    assert set(found) == {"c.weight", "d.weight"}
    assert set(expected) == {"a.weight", "b.weight", "c.weight", "d.weight"}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def test_what_is_not_weighed_by_the_output_is_said() -> None:
    notes = solve(make_program(Net(WALL))).notes
    assert any(
        note.startswith("errors of 2 of 4 layers are not weighed") and "snowstest::wall" in note for note in notes
    )


def test_the_loss_names_the_operator() -> None:
    graph = ProgramGraph(make_program(Net(WALL)))
    with pytest.raises(GraphError, match="no gradient") as caught:
        ProgramLoss(graph, graph.state_values(), BATCHES, None, names=names_of(graph.program))
    assert "snowstest::wall" in str(caught.value)
    behind = ProgramLoss(graph, graph.state_values(), BATCHES, None, names=["c.weight"])
    weight = graph.program.state_dict["c.weight"].detach()
    assert behind.gradient({"c.weight": weight})["c.weight"].any()


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("middle", [sampled, ONCE, WALL])
def test_memory_is_measured(middle: Callable[[Net, Tensor], Tensor], direct: bool) -> None:
    program = make_program(Net(middle, direct=direct))
    method = Reconstruction(horizon="model", targets=1.0, newton=NewtonCG(max_steps=1))
    plan = Plan(method, layers=4, sensitivity=0.5, final=method)
    needs = measure_needs(ProgramGraph(program), names_of(program), PATTERN, plan, BATCHES[0][:1], curvature=True)
    assert all(unit.graph_per_image > 0 for unit in needs.units)


@pytest.mark.usefixtures("no_derivatives")
@pytest.mark.parametrize("middle", [sampled, WALL])
def test_memory_of_a_plan_without_steps_differentiates_nothing(middle: Callable[[Net, Tensor], Tensor]) -> None:
    program = make_program(Net(middle))
    plan = Plan(Reconstruction(horizon=0, targets=1.0, newton=None), sensitivity=0.0)
    needs = measure_needs(ProgramGraph(program), names_of(program), PATTERN, plan, BATCHES[0][:1], curvature=False)
    assert len(needs.units) == len(names_of(program))


@pytest.fixture
def no_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("something was differentiated")

    monkeypatch.setattr(torch.autograd, "grad", refused)
    monkeypatch.setattr(torch.autograd.forward_ad, "make_dual", refused)


@pytest.mark.usefixtures("no_derivatives")
@pytest.mark.parametrize("exact", [False, True])
def test_layers_alone_differentiate_nothing(exact: bool) -> None:
    program = make_program(Net(WALL))
    alone = Reconstruction(horizon=0, targets=0.0, newton=None, exact=exact)
    solved = solve(program, method=alone, sensitivity=0.0, final=None, joint=False)
    assert solved.notes == ()
    assert not any(report.derivatives for report in solved.units)


def test_names_are_said_once() -> None:
    _, found = probed(Net(lambda net, x: once(once(x))))
    assert operator_names(found.lacks) == "snowstest::once"
