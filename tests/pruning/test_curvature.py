"""Sensitivity, preconditioners and normalisation statistics against dense matrices, in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from snowsdeploy.models.graph import evaluate
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.windows import Window, cut_window
from snowsdeploy.pruning.importance.sensitivity import output_curvature
from snowsdeploy.pruning.norms import reestimate_batch_norms
from snowsdeploy.pruning.schedule import block_end
from snowsdeploy.pruning.solve.objective import Sample, Support, WindowObjective
from snowsdeploy.pruning.solve.preconditioner import make_preconditioner
from snowsdeploy.pruning.solve.start import factor_inputs, least_squares_start
from snowsdeploy.selectors.base import Choice


def double_state(graph: ProgramGraph) -> dict[torch.fx.Node, torch.Tensor]:
    return {n: t.double() if t.is_floating_point() else t for n, t in graph.state_values().items()}


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def setup(
    program: Program, weights: list[str], horizon: int, *, free: bool = False, last: bool = False
) -> tuple[Window, WindowObjective, torch.Tensor]:
    graph = ProgramGraph(program)
    state = double_state(graph)
    end = block_end(graph, weights[-1])
    until = (end,) if last and end is not None else ()
    window = cut_window(graph, weights, horizon, until=until, free=free)
    stream = Activations(graph, list(images(6).split(3)), state)
    stream.advance(window.calls[0])
    tensors = {p: state[p] for p in window.weights}
    samples = []
    for batch in range(len(stream)):
        live = stream.live_ins(batch, window.live_ins)
        samples.append(Sample(live, tuple(y + 0.1 for y in window(tensors, live))))
    masks = [
        mask_by_score(t.abs(), Pattern(2, 4)) if t.dim() > 1 else torch.ones_like(t, dtype=torch.bool)
        for t in tensors.values()
    ]
    support = Support(tuple(masks))
    return window, WindowObjective(window, support, samples), support.gather(list(tensors.values()))


def dense_gauss_newton(objective: WindowObjective, x: torch.Tensor) -> torch.Tensor:
    product = objective.curvature(x)
    return torch.stack([product(e) for e in torch.eye(len(x), dtype=x.dtype)])


def test_output_curvature_is_the_mean_squared_jacobian(tiny: Program) -> None:
    graph = ProgramGraph(tiny)
    state = double_state(graph)
    weight = next(iter(graph.layers))
    node = block_end(graph, weight)
    assert node is not None
    batch = images(2)
    stream = Activations(graph, [batch], state)
    stream.advance(next(iter(node.users)))
    value = stream.live_ins(0, [node])[node]

    def output(v: torch.Tensor) -> torch.Tensor:
        return stream_finish(stream, node, v)

    jacobian = torch.autograd.functional.jacobian(output, value)  # [images, classes, images, ...]
    own = torch.stack([jacobian[i, :, i] for i in range(len(batch))])
    expected = own.square().sum(1).mean(0, keepdim=True)
    estimate = sum(output_curvature(graph, state, [batch], [node], seed)[node] for seed in range(150)) / 150
    assert float((estimate - expected / expected.mean()).abs().mean()) < 0.15  # both have mean one


def stream_finish(stream: Activations, node: torch.fx.Node, value: torch.Tensor) -> torch.Tensor:
    graph = stream.graph
    scope = {**stream._constants, **stream._live(0), node: value}
    later = [n for n in graph.nodes if graph.order[n] > graph.order[node] and n not in stream._constants]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        evaluate(later, scope)
    return scope[graph.outputs[0]]


def test_a_value_that_the_output_does_not_read_has_the_identity(tiny_cnn: Program) -> None:
    graph = ProgramGraph(tiny_cnn)
    node = graph.layers["twice.weight"].calls[0]
    found = output_curvature(graph, double_state(graph), [images(2)], [node])[node]
    assert found.shape == (1, *node.meta["val"].shape[1:])
    assert float(found.mean()) == pytest.approx(1)


@pytest.mark.parametrize("free", [False, True])
def test_products_with_a_metric_and_vectors_equal_dense_matrices(tiny: Program, free: bool) -> None:
    name = [w for w in ProgramGraph(tiny).layers if w.startswith(("twice", "qkv"))]
    window, plain, x = setup(tiny, name, 0, free=free, last=True)
    target = plain.samples[0].targets[0]
    metric = torch.rand(1, *target.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    objective = dataclasses.replace(plain, metrics=[metric])
    energy = sum(float((s.targets[0].square() * metric).sum()) for s in plain.samples)

    def loss(v: torch.Tensor) -> torch.Tensor:
        tensors = dict(zip(window.weights, plain.support.scatter(v), strict=True))
        errors = [(window(tensors, s.live_ins)[0] - s.targets[0]).square() * metric for s in plain.samples]
        return sum((e.sum() for e in errors), torch.zeros((), dtype=v.dtype)) / energy

    def residual(v: torch.Tensor) -> torch.Tensor:
        tensors = dict(zip(window.weights, plain.support.scatter(v), strict=True))
        return torch.cat([(window(tensors, s.live_ins)[0] * (metric / energy).sqrt()).flatten() for s in plain.samples])

    jacobian = torch.autograd.functional.jacobian(residual, x)
    value, gradient = objective.value_and_gradient(x)
    assert value == pytest.approx(float(loss(x)), rel=1e-10)
    torch.testing.assert_close(gradient, torch.autograd.functional.jacobian(loss, x), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(dense_gauss_newton(objective, x), 2 * jacobian.T @ jacobian, rtol=1e-8, atol=1e-12)
    assert any(p.meta["val"].dim() == 1 for p in window.weights) == free


@pytest.mark.parametrize("kind", ["cholesky", "kronecker"])
def test_for_the_layers_own_output_the_preconditioner_is_the_inverse(tiny_cnn: Program, kind: str) -> None:
    window, objective, x = setup(tiny_cnn, ["strided.weight"], 0)
    names = ["strided.weight"]
    weights = dict(zip(window.weights, objective.support.scatter(x), strict=True))
    factors = factor_inputs(window, weights, objective.support, objective.samples, ridge=1e-12, names=names)
    apply = make_preconditioner(kind, objective, x, factors)  # type: ignore[arg-type]
    assert apply is not None
    matrix = dense_gauss_newton(objective, x)
    image = torch.stack([apply(column) for column in matrix.T]).T
    diagonal = image.diagonal()
    torch.testing.assert_close(image, torch.diag(diagonal), rtol=1e-6, atol=1e-6 * float(diagonal.mean()))
    torch.testing.assert_close(diagonal, diagonal.mean().expand_as(diagonal), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["diagonal", "cholesky", "kronecker"])
def test_a_preconditioner_is_positive_and_lowers_the_condition(tiny: Program, kind: str) -> None:
    names = [w for w in ProgramGraph(tiny).layers if w.startswith(("strided", "dilated", "qkv", "proj"))]
    window, objective, x = setup(tiny, names, 0, free=True, last=True)
    weights = dict(zip(window.weights, objective.support.scatter(x), strict=True))
    factors = factor_inputs(window, weights, objective.support, objective.samples, ridge=1e-3, names=names)
    apply = make_preconditioner(kind, objective, x, factors)  # type: ignore[arg-type]
    assert apply is not None
    inverse = torch.stack([apply(e) for e in torch.eye(len(x), dtype=x.dtype)])
    torch.testing.assert_close(inverse, inverse.T, rtol=1e-5, atol=1e-6 * float(inverse.abs().max()))
    assert float(torch.linalg.eigvalsh((inverse + inverse.T) / 2).min()) > 0


def by_magnitude(name: str, weight: torch.Tensor, gram: torch.Tensor) -> Choice:
    return Choice(mask_by_score(weight.abs(), Pattern(2, 4)))


def test_factors_at_the_start_equal_those_of_one_evaluation(tiny_cnn: Program) -> None:
    names = ["strided.weight", "dilated.weight"]
    window, objective, x = setup(tiny_cnn, names, 0, last=True)
    original = dict(zip(window.weights, objective.support.scatter(x), strict=True))
    start = least_squares_start(window, original, objective.samples, by_magnitude, ridge=1e-3, names=names)
    first = start.factors
    second = factor_inputs(window, start.tensors, objective.support, objective.samples, ridge=1e-3, names=names)
    for a, b in zip(first, second, strict=True):
        for left, right in zip(a.factors, b.factors, strict=True):
            torch.testing.assert_close(left, right)


def test_statistics_move_by_what_pruning_moved(tiny_cnn: Program) -> None:
    graph = ProgramGraph(tiny_cnn)
    state = double_state(graph)
    batches = list(images(8).split(4))
    unchanged = reestimate_batch_norms(graph, Activations(graph, batches, state), Activations(graph, batches, state))
    assert unchanged
    for name, value in unchanged.items():
        torch.testing.assert_close(value, tiny_cnn.state_dict[name].double())
    stem = graph.placeholder("stem.weight")
    moved = reestimate_batch_norms(
        graph, Activations(graph, batches, state), Activations(graph, batches, state | {stem: 2 * state[stem]})
    )
    torch.testing.assert_close(moved["norm.running_var"], 4 * tiny_cnn.state_dict["norm.running_var"].double())


def test_a_model_whose_output_reads_nothing_is_pruned_all_the_same(tiny: Program) -> None:
    """An untrained head of zeros: every curvature is zero, so every error counts the same."""
    blind = tiny.with_weights({"head.weight": torch.zeros_like(tiny.state_dict["head.weight"])})
    graph = ProgramGraph(blind)
    calls = [call for name, layer in graph.layers.items() if name != "head.weight" for call in layer.calls]
    for call, found in output_curvature(graph, graph.state_values(), [images(2).float()], calls).items():
        assert (found == 1).all()
        assert found.dim() == call.meta["val"].dim()
