"""Where a solve's numbers could go wrong unseen: time in front of the batch, dead channels, masks of infinity."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.violations import count_violations
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.gram import gram_matrix, input_rows
from snowsdeploy.pruning.flow.windows import cut_window
from snowsdeploy.pruning.importance.sensitivity import output_curvature
from snowsdeploy.pruning.norms import reestimate_batch_norms
from snowsdeploy.pruning.prune import Plan, metric_nodes, prune_program, unit_metrics
from snowsdeploy.pruning.solve.objective import Sample, Support, WindowObjective
from snowsdeploy.pruning.solve.preconditioner import make_preconditioner
from snowsdeploy.pruning.solve.reconstruct import Reconstruction
from snowsdeploy.solver.newton import NewtonCG
from tests.nets import make_program
from tests.permutation.nets import make_double

PATTERN = Pattern(2, 4)
IMAGES = torch.randn(11, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class TimeFirst(nn.Module):
    """Patches of an image through attention that has time in front, as `nn.MultiheadAttention` by default."""

    def __init__(self, *, infinite: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 2, stride=2)
        self.attention = nn.MultiheadAttention(8, 2)
        self.norm, self.hidden, self.head = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 5)
        mask = torch.full((16, 16), -math.inf).triu(1) if infinite else torch.zeros(16, 16)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).permute(2, 0, 1)
        tokens = tokens + self.attention(tokens, tokens, tokens, attn_mask=self.mask, need_weights=True)[0]
        y: Tensor = self.head(torch.relu(self.hidden(self.norm(tokens))).mean(0))
        return y


def prune(net: nn.Module, sizes: list[int]) -> dict[str, Tensor]:
    program = make_program(net)
    names = [d.weight for d in decide_layers(ProgramGraph(program), PATTERN) if d.prunable and d.weight]
    assert "hidden.weight" in names
    plan = Plan(Reconstruction(horizon="block", targets=1.0, newton=NewtonCG()), sensitivity=0.9)
    batches = list(IMAGES.split(sizes))
    solved = prune_program(program, batches, names, PATTERN, plan, observer=NullObserver())
    assert all(report.loss_final <= report.loss_initial for report in solved.units)
    for name in names:
        assert count_violations((solved.tensors[name] != 0).numpy(), PATTERN)[1] == 0
    return solved.tensors


def test_the_batch_is_found_wherever_it_is() -> None:
    graph = ProgramGraph(make_program(TimeFirst()))
    (call,) = graph.layers["hidden.weight"].calls
    assert [graph.batch_axis(node) for node in (graph.inputs[0], call, *graph.outputs)] == [0, 1, 0]


@pytest.mark.parametrize("infinite", [False, True], ids=["open", "causal"])
def test_time_in_front_of_an_uneven_last_batch_is_pruned(infinite: bool) -> None:
    prune(TimeFirst(infinite=infinite), [4, 4, 3])


def test_errors_are_weighed_by_position_and_not_by_their_place_in_a_batch() -> None:
    """The exact diagonal in float64: batches of another size and order of the images give the same metric."""
    graph = ProgramGraph(make_double(TimeFirst()))
    (call,) = graph.layers["hidden.weight"].calls
    images, found = IMAGES.double(), []
    for batches in (images.split(1), images.split(4), images.flip(0).split(11)):
        metric = sum(output_curvature(graph, graph.state_values(), batches, [call], seed)[call] for seed in range(300))
        assert metric.shape == (16, 1, 16)
        found.append(metric / 300)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0.2, atol=0.05)


def test_weighed_moments_of_a_linear_layer_with_time_in_front() -> None:
    graph = ProgramGraph(make_double(TimeFirst()))
    (call,) = graph.layers["hidden.weight"].calls
    x = torch.randn(16, 3, 8, dtype=torch.float64)
    metric = torch.rand(16, 1, 16, dtype=torch.float64)
    expected = sum(metric[t].mean() * x[t].T @ x[t] for t in range(16))
    torch.testing.assert_close(gram_matrix([(call, x)], {call: metric}), expected)
    torch.testing.assert_close(input_rows(call, x), x.flatten(0, 1))


class Bias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.norm(torch.relu(self.stem(x)))).mean((2, 3))
        return y


def test_a_channel_that_is_dead_on_the_images_keeps_its_variance() -> None:
    graph = ProgramGraph(make_double(Bias()))
    state = graph.state_values()
    bias = graph.placeholder("stem.bias")
    dead, alive = state[bias].clone(), state[bias].clone()
    dead[0], alive[0] = -1e3, 1e3

    def stream(change: dict[str, Tensor]) -> Activations:
        return Activations(
            graph, list(IMAGES.double().split(4)), state | {graph.placeholder(k): v for k, v in change.items()}
        )

    before = state[graph.placeholder("norm.running_var")]
    for dense, pruned in (({}, {"stem.bias": dead}), ({"stem.bias": dead}, {})):
        after = reestimate_batch_norms(graph, stream(dense), stream(pruned))["norm.running_var"]
        torch.testing.assert_close(after, before)
    weight = state[graph.placeholder("stem.weight")].clone()
    weight[0] *= 1e-3
    faint = {"stem.bias": alive, "stem.weight": weight}
    after = reestimate_batch_norms(graph, stream({"stem.bias": alive}), stream(faint))["norm.running_var"]
    assert float(after[0] / before[0]) == pytest.approx(0.01)


def window_objective(curvature_samples: int | None) -> tuple[WindowObjective, Tensor]:
    graph = ProgramGraph(make_double(Bias()))
    window = cut_window(graph, ["last.weight"], 0, free=True)
    stream = Activations(graph, list(IMAGES.double().split([4, 4, 3])), graph.state_values())
    stream.advance(window.calls[0])
    tensors = {p: stream.value(p) for p in window.weights}
    live = [stream.live_ins(batch, window.live_ins) for batch in range(len(stream))]
    samples = [Sample(v, tuple(y + 0.1 for y in window(tensors, v)), stream.items(i)) for i, v in enumerate(live)]
    support = Support(tuple(torch.ones_like(t, dtype=torch.bool) for t in tensors.values()))
    objective = WindowObjective(window, support, samples, curvature_samples=curvature_samples)
    return objective, support.gather(list(tensors.values()))


def test_part_of_the_images_stands_for_all_in_products_and_in_what_preconditions_them() -> None:
    """The output is linear in weight and bias: the diagonal of either is the same but for the images' differences."""
    (whole, x), (part, _) = window_objective(None), window_objective(1)
    assert whole.items == part.items == (4, 4, 3)
    assert part.curvature_share == pytest.approx(4 / 11)
    ones = torch.ones_like(x)
    inverse = [make_preconditioner("diagonal", objective, x, [], seed=1) for objective in (whole, part)]
    assert all(inverse)
    mean = [float((1 / apply(ones)).mean()) for apply in inverse if apply]
    assert mean[1] / mean[0] == pytest.approx(1, rel=0.35)
    along = [float(ones @ objective.curvature(x)(ones)) for objective in (whole, part)]
    assert along[1] / along[0] == pytest.approx(1, rel=0.2)


def test_a_copy_reads_no_sample_again() -> None:
    objective, x = window_objective(None)

    class Closed(list[Sample]):
        def __iter__(self) -> object:  # type: ignore[override]
            raise AssertionError("read again")

    object.__setattr__(objective, "samples", Closed(objective.samples))
    copy = objective.having(preconditioner=torch.neg)
    assert copy.scales == objective.scales
    assert copy.curvature_share == 1.0
    assert torch.equal(copy.precondition(x), -x)
    assert torch.equal(objective.precondition(x), x)
    assert replace(objective, samples=objective.samples[:1]).items == (4,)


def test_probes_follow_the_seed() -> None:
    program = make_program(TimeFirst())
    graph = ProgramGraph(program)
    found = []
    for seed in (0, 0, 1):
        plan = Plan(Reconstruction(horizon="block", targets=1.0, newton=NewtonCG(), seed=seed), sensitivity=0.9)
        units = plan.units(graph, ["hidden.weight"])
        metrics = unit_metrics(graph, [IMAGES], units, plan)
        found.append(metrics[metric_nodes(graph, units)[-1]])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_one_output_channel_is_not_depthwise() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.deep = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 1), nn.Conv2d(8, 8, 3, groups=8)
            self.last = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.stem(x))
            z: Tensor = self.last((self.deep(y) * torch.sigmoid(self.one(y))[:, :, 1:-1, 1:-1]).mean((2, 3)))
            return z

    decisions = {d.name: d for d in decide_layers(ProgramGraph(make_program(Net())), PATTERN)}
    assert decisions["one"].prunable
    assert decisions["deep"].reason == "depthwise convolution"


@pytest.mark.parametrize(
    ("kind", "batches", "damping"), [("kronecker", 1, 0.5), ("kronecker", 2, 0.0), ("none", 1, 0.0)]
)
def test_the_preconditioner_stands_in_for_images_without_curvature(kind: str, batches: int, damping: float) -> None:
    """Of two batches of equal size, products see one or both; without a preconditioner nothing has their scale."""
    program = make_double(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)))
    graph = ProgramGraph(program)
    window = cut_window(graph, ["1.weight"], 0)
    stream = Activations(graph, list(torch.randn(6, 3, 8, 8, dtype=torch.float64).split(3)), graph.state_values())
    stream.advance(window.calls[0])
    tensors = {p: stream.value(p) for p in window.weights}
    live = [stream.live_ins(batch, window.live_ins) for batch in range(len(stream))]
    samples = [Sample(values, window(tensors, values), 3) for values in live]
    support = Support(tuple(torch.ones_like(t, dtype=torch.bool) for t in tensors.values()))
    objective = WindowObjective(window, support, samples, curvature_samples=batches)
    method = Reconstruction("block", 1.0, NewtonCG(), preconditioner=kind)  # type: ignore[arg-type]
    assert method.newton is not None
    assert method.damped(method.newton, objective).cg.damping == damping
