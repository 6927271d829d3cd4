"""The loss' gradients and curvature against autograd on the whole network, in float64."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from snowsdeploy.errors import DataError, GraphError
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.importance.loss import ProgramLoss, _curvature_columns
from tests.nets import NETS, make_program

PRUNED = {
    "cnn": ("twice.weight", "strided.weight", "dilated.weight"),
    "attention": ("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight", "head.weight"),
    "fused attention": ("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight", "head.weight"),
}
COUNT = 7
IMAGES = torch.randn(COUNT, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 4, 2, 2, 1, 3, 0])


class Case:
    """A net, its loss in float64 on batches of unequal size, and single images' Jacobians by autograd."""

    def __init__(self, name: str, labels: torch.Tensor | None = LABELS) -> None:
        torch.manual_seed(0)
        self.module = NETS[name]()
        program = make_program(self.module)
        self.graph = ProgramGraph(program)
        self.module.double().eval()
        self.names = PRUNED[name]
        state = {n: v.double() if v.is_floating_point() else v for n, v in self.graph.state_values().items()}
        self.loss = ProgramLoss(self.graph, state, [IMAGES[:4], IMAGES[4:]], labels, names=self.names)
        self.weights = {n: p.detach() for n, p in self.module.named_parameters() if n in self.names}

    def logits(self, weights: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no batching rule
            return functional_call(self.module, weights, (image.unsqueeze(0),)).squeeze(0)

    def jacobians(self) -> dict[str, torch.Tensor]:
        parts = [jacrev(self.logits)(self.weights, image) for image in IMAGES]
        return {n: torch.stack([p[n] for p in parts]) for n in self.names}

    def single(self) -> dict[str, torch.Tensor]:
        def loss(weights: dict[str, torch.Tensor], image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return cross_entropy(self.logits(weights, image).unsqueeze(0), label.unsqueeze(0))

        parts = [jacrev(loss)(self.weights, x, y) for x, y in zip(IMAGES, LABELS, strict=True)]
        return {n: torch.stack([p[n] for p in parts]) for n in self.names}


@pytest.fixture(params=NETS)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_the_curvature_is_the_exact_diagonal_of_gauss_newton(case: Case) -> None:
    found = case.loss.curvature(case.weights)
    p = vmap(lambda x: case.logits(case.weights, x).softmax(0))(IMAGES)
    hessian = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    for name, jacobian in case.jacobians().items():
        j = jacobian.flatten(2)
        dense = torch.einsum("ncq,ncd,ndr->nqr", j, hessian, j).mean(0)
        torch.testing.assert_close(found[name].flatten(), dense.diagonal(), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("passes", "draws", "error"), [(1, 200, 0.12), (3, 300, 0.03)])
def test_fewer_passes_than_classes_are_right_on_average(passes: int, draws: int, error: float) -> None:
    case = Case("cnn")
    exact = case.loss.curvature(case.weights)
    mean = dict.fromkeys(case.names, torch.zeros(()))
    for seed in range(draws):
        state = case.graph.state_values()
        state = {n: v.double() if v.is_floating_point() else v for n, v in state.items()}
        loss = ProgramLoss(case.graph, state, [IMAGES], LABELS, names=case.names, seed=seed)
        mean = {n: mean[n] + d / draws for n, d in loss.curvature(case.weights, passes).items()}
    for name in case.names:
        assert float((mean[name] - exact[name]).norm() / exact[name].norm()) < error
        torch.testing.assert_close(case.loss.curvature(case.weights, 5)[name], exact[name])


def test_an_image_that_leaves_nothing_to_draw_from_adds_nothing() -> None:
    certain = torch.tensor([[1.0, 0, 0, 0]])
    columns = _curvature_columns(certain, 2, torch.Generator())
    torch.testing.assert_close(torch.cat(columns), torch.zeros(2, 4))


def test_the_gradient_and_those_of_single_images_are_autograds(case: Case) -> None:
    expected = case.single()
    found = case.loss.gradient(case.weights)
    for name in case.names:
        torch.testing.assert_close(found[name], expected[name].mean(0), rtol=1e-9, atol=1e-15)
    for names in (case.names, case.names[1:2]):  # all, and some of them
        pieces = list(case.loss.gradients(case.weights, names, 6, 1))
        assert set(pieces[0]) == set(names)
        for name in names:
            torch.testing.assert_close(torch.cat([p[name] for p in pieces]), expected[name][:6], rtol=1e-9, atol=1e-15)


def test_mini_batches_are_means_across_the_batches_in_memory(case: Case) -> None:
    expected = case.single()
    pieces = list(case.loss.gradients(case.weights, case.names, 10, 3))
    for name in case.names:
        found = torch.cat([p[name] for p in pieces])
        assert len(found) == 2  # a third would not be full
        torch.testing.assert_close(found, expected[name][:6].unflatten(0, (2, 3)).mean(1), rtol=1e-9, atol=1e-15)


def test_positions_count_multiplications_a_weight() -> None:
    loss = Case("cnn").loss
    assert [loss.positions(n) for n in PRUNED["cnn"]] == [2 * 64, 16, 16]


def test_sampled_labels_are_the_models_own_and_repeatable() -> None:
    case = Case("cnn", labels=None)
    first, second = (next(case.loss.gradients(case.weights, case.names, 4, 1)) for _ in range(2))
    jacobian = case.jacobians()[case.names[0]][:4]
    p = vmap(lambda x: case.logits(case.weights, x).softmax(0))(IMAGES[:4])
    possible = torch.einsum("kc...,kyc->ky...", jacobian, p.unsqueeze(1) - torch.eye(5, dtype=torch.float64))
    distance = (possible - first[case.names[0]].unsqueeze(1)).flatten(2).norm(dim=2)
    assert (distance.min(1).values < 1e-9).all()
    assert all(torch.equal(first[n], second[n]) for n in case.names)


@pytest.mark.parametrize("labels", [LABELS[:3], LABELS + 1, LABELS - 1])
def test_labels_that_do_not_fit_are_an_error(labels: torch.Tensor) -> None:
    with pytest.raises(DataError, match="labels do not fit"):
        Case("cnn", labels=labels)


class Sequence(torch.nn.Module):
    """Positions first, as some attention layers want it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = torch.nn.Linear(8, 8), torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.fc(x.flatten(1, 2).permute(1, 0, 2))).mean(0))


def test_images_that_are_not_the_first_axis_are_refused() -> None:
    graph = ProgramGraph(make_program(Sequence()))
    images = [IMAGES.float()]
    with pytest.raises(GraphError, match="first axis"):
        ProgramLoss(graph, graph.state_values(), images, LABELS, names=["fc.weight"])
