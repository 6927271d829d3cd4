"""Windows against the whole model, and their derivatives against dense matrices, in float64."""

from __future__ import annotations

import pytest
import torch
from torch.fx import Interpreter, Node

from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.windows import Window, cut_window
from snowsdeploy.pruning.solve.objective import Sample, Support, WindowObjective

HORIZONS = (0, 1, 3, 100)


class Recorder(Interpreter):
    """Runs the exported graph by torch.fx and keeps every value: an independent evaluation."""

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        self.values[n] = value
        return value

    values: dict[Node, object]


def all_values(graph: ProgramGraph, images: torch.Tensor) -> dict[Node, object]:
    exported = graph.program.exported
    recorder = Recorder(exported.graph_module)
    recorder.values = {}
    placeholders = [n for n in exported.graph.nodes if n.op == "placeholder"]
    state = double_state(graph)
    recorder.run(*[images if n in graph.inputs else state[n] for n in placeholders])
    return recorder.values


def double_state(graph: ProgramGraph) -> dict[Node, torch.Tensor]:
    return {n: t.double() if t.is_floating_point() else t for n, t in graph.state_values().items()}


def pruned_weights(graph: ProgramGraph) -> list[str]:
    return [d.weight for d in decide_layers(graph, Pattern(2, 4)) if d.prunable and d.weight]


def window_setup(
    program: Program, horizon: int, count: int = 1
) -> list[tuple[Window, Sample, dict[Node, torch.Tensor]]]:
    graph = ProgramGraph(program)
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    state = double_state(graph)
    rows = []
    names = pruned_weights(graph)
    for index in range(0, len(names), count):
        window = cut_window(graph, names[index : index + count], horizon)
        stream = Activations(graph, [images], state)
        stream.advance(window.calls[0])
        live = stream.live_ins(0, window.live_ins)
        weights = {p: state[p] for p in window.weights}
        rows.append((window, Sample(live, window(weights, live)), weights))
    return rows


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("count", [1, 2])
def test_outputs_equal_the_whole_model(tiny: Program, horizon: int, count: int) -> None:
    graph = ProgramGraph(tiny)
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = all_values(graph, images)
    for window, sample, _ in window_setup(tiny, horizon, count):
        for node, value in zip(window.outputs, sample.targets, strict=True):
            expected = whole[node]
            expected = expected if isinstance(expected, torch.Tensor) else expected[0]  # type: ignore[index]
            torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)


def test_horizon_counts_operations_after_the_layer(tiny_cnn: Program) -> None:
    graph = ProgramGraph(tiny_cnn)
    assert cut_window(graph, ["strided.weight"], 0).operations == 0
    window = cut_window(graph, ["strided.weight"], 3)
    assert window.operations == 3
    names = [n.target._schema.name for n in window.outputs]  # type: ignore[union-attr]
    assert names == ["aten::conv2d", "aten::gelu", "aten::conv2d", "aten::sigmoid"]


def test_residual_sum_is_counted_and_its_other_term_flows_in(tiny_cnn: Program) -> None:
    graph = ProgramGraph(tiny_cnn)
    window = cut_window(graph, ["dilated.weight"], 3)
    assert window.outputs[-1].target is torch.ops.aten.add.Tensor
    assert any(n.target is torch.ops.aten.gelu.default for n in window.live_ins)


def test_weight_used_twice_has_one_window_with_both_calls(tiny_cnn: Program) -> None:
    assert len(cut_window(ProgramGraph(tiny_cnn), ["twice.weight"], 0).calls) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_products_equal_dense_matrices(tiny: Program, count: int) -> None:
    for window, sample, weights in window_setup(tiny, 4, count):
        shift = [w + 0.1 * torch.randn_like(w) for w in weights.values()]
        support = Support(tuple(mask_by_score(w.abs(), Pattern(2, 4)) for w in shift))
        objective = WindowObjective(window, support, [sample])
        hessian_objective = WindowObjective(window, support, [sample], curvature_kind="hessian")
        x = support.gather(shift)

        def outputs(vector: torch.Tensor) -> torch.Tensor:
            tensors = dict(zip(window.weights, support.scatter(vector), strict=True))  # noqa: B023 - used at once
            ys = window(tensors, sample.live_ins)  # noqa: B023
            return torch.cat([y.flatten() * s**0.5 for y, s in zip(ys, objective.scales, strict=True)])  # noqa: B023

        target = torch.cat([t.flatten() * s**0.5 for t, s in zip(sample.targets, objective.scales, strict=True)])

        def loss(vector: torch.Tensor) -> torch.Tensor:
            return (outputs(vector) - target).square().sum()  # noqa: B023

        jacobian = torch.autograd.functional.jacobian(outputs, x)
        hessian = torch.autograd.functional.hessian(loss, x)
        value, gradient = objective.value_and_gradient(x)
        assert value == pytest.approx(float(loss(x)), rel=1e-10)
        assert objective.value(x) == pytest.approx(value, rel=1e-12)
        v = torch.randn_like(x)
        torch.testing.assert_close(gradient, 2 * jacobian.T @ (outputs(x) - target), rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(objective.curvature(x)(v), 2 * jacobian.T @ (jacobian @ v), rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(hessian_objective.curvature(x)(v), hessian @ v, rtol=1e-7, atol=1e-9)


def test_curvature_on_a_part_of_the_batches_keeps_its_scale(tiny_cnn: Program) -> None:
    window, sample, weights = window_setup(tiny_cnn, 2)[0]
    support = Support(tuple(torch.ones_like(w, dtype=torch.bool) for w in weights.values()))
    x = support.gather(list(weights.values()))
    whole = WindowObjective(window, support, [sample, sample])
    part = WindowObjective(window, support, [sample, sample], curvature_samples=1)
    v = torch.randn_like(x)
    torch.testing.assert_close(part.curvature(x)(v), whole.curvature(x)(v))


def test_support_round_trip() -> None:
    masks = (torch.rand(3, 4) > 0.5, torch.rand(2, 4, 3, 3) > 0.5)
    support = Support(masks)
    tensors = [torch.randn(m.shape) for m in masks]
    back = support.scatter(support.gather(tensors))
    for tensor, mask, value in zip(tensors, masks, back, strict=True):
        assert torch.equal(value, tensor * mask)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_a_signature_has_the_shapes_of_every_output(tiny: Program, horizon: int) -> None:
    graph = ProgramGraph(tiny)
    signatures = [cut_window(graph, [name], horizon).signature for name in pruned_weights(graph)]
    assert len(set(signatures)) == len(signatures)
