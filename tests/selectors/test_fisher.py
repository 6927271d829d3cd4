"""WoodFisher and WoodTaylor against the paper's formulas, in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch

from snowsdeploy.selectors.base import Tensors
from snowsdeploy.selectors.fisher import inverse_fisher
from snowsdeploy.selectors.woodfisher import WoodFisher, WoodTaylor


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def recursion(gradients: torch.Tensor, damping: float) -> torch.Tensor:
    """The paper's: one gradient after another."""
    count, size = gradients.shape
    inverse = torch.eye(size, dtype=torch.float64) / damping
    for g in gradients:
        product = inverse @ g
        inverse = inverse - torch.outer(product, product) / (count + g @ product)
    return inverse


@pytest.mark.parametrize("count", [1, 5, 12, 40])  # fewer and more gradients than weights
@pytest.mark.parametrize("damping", [1e-5, 1e-1])
def test_the_inverse_is_the_dense_one_and_the_recursions(count: int, damping: float) -> None:
    g = random(count, 12)
    found = inverse_fisher(g, damping)
    dense = torch.linalg.inv(damping * torch.eye(12, dtype=torch.float64) + g.T @ g / count)
    scale = float(dense.abs().max())
    torch.testing.assert_close(recursion(g, damping), dense, rtol=1e-6, atol=1e-9 * scale)
    torch.testing.assert_close(found.diagonal(), dense.diagonal(), rtol=1e-6, atol=1e-9 * scale)
    v = random(12, seed=1)
    torch.testing.assert_close(found(v), dense @ v, rtol=1e-6, atol=1e-9 * scale)


class GivenGradients:
    """A loss whose gradients are given."""

    def __init__(self, **gradients: torch.Tensor) -> None:
        self.given = gradients

    def gradient(self, weights: Mapping[str, torch.Tensor]) -> Tensors:
        raise AssertionError

    def curvature(self, weights: Mapping[str, torch.Tensor], passes: int = 0) -> Tensors:
        raise AssertionError

    def gradients(
        self, weights: Mapping[str, torch.Tensor], names: tuple[str, ...], count: int, batch: int
    ) -> Iterator[Tensors]:
        for start in range(0, 9, 4):  # in pieces
            yield {n: self.given[n][start : min(start + 4, count)] for n in names}

    def positions(self, name: str) -> int:
        return {"a": 4, "b": 9}[name]


WEIGHTS = {"a": random(2, 4, seed=2), "b": random(3, 2, 2, seed=3)}
LOSS = GivenGradients(a=random(9, 2, 4, seed=4), b=random(9, 3, 2, 2, seed=5))
ALL = {n: torch.ones_like(w, dtype=torch.bool) for n, w in WEIGHTS.items()}
MASKS = {"a": WEIGHTS["a"] > 0, "b": WEIGHTS["b"] > 0.3}


def dense_inverse(name: str, damping: float, blocks: list[slice]) -> torch.Tensor:
    g = LOSS.given[name].flatten(1)
    inverse = torch.zeros(g.shape[1], g.shape[1], dtype=torch.float64)
    for b in blocks:
        part = g[:, b]
        inverse[b, b] = torch.linalg.inv(damping * torch.eye(part.shape[1], dtype=torch.float64) + part.T @ part / 9)
    return inverse


BLOCKS = {"a": [slice(0, 5), slice(5, 8)], "b": [slice(0, 5), slice(5, 10), slice(10, 12)]}


@pytest.mark.parametrize("name", ["a", "b"])
def test_woodfishers_statistic_and_update_are_the_formulas(name: str) -> None:
    estimate = WoodFisher(damping=1e-3, block=5, flops_power=0.5).estimate(LOSS, WEIGHTS, ALL)
    inverse, w = dense_inverse(name, 1e-3, BLOCKS[name]), WEIGHTS[name].flatten()
    expected = w**2 / (2 * inverse.diagonal()) / LOSS.positions(name) ** 0.5
    torch.testing.assert_close(estimate.scores[name].flatten(), expected, rtol=1e-6, atol=0)

    assert estimate.update is not None
    pruned = ~MASKS[name].flatten()
    moved = (w - inverse @ (pruned * w / inverse.diagonal())) * ~pruned
    torch.testing.assert_close(estimate.update(MASKS)[name].flatten(), moved, rtol=1e-6, atol=1e-9)
    assert estimate.facts == "9 gradients of one image"


@pytest.mark.parametrize("name", ["a", "b"])
def test_woodtaylor_is_the_constrained_minimum_of_the_quadratic_model(name: str) -> None:
    """With `g d + d F d / 2` minimal over d, `d_q = -w_q`: solved as a linear system for every q."""
    estimate = WoodTaylor(damping=1e-1, block=5).estimate(LOSS, WEIGHTS, ALL)
    inverse, w = dense_inverse(name, 1e-1, BLOCKS[name]), WEIGHTS[name].flatten()
    fisher, g = torch.linalg.inv(inverse), LOSS.given[name].mean(0).flatten()
    constant = g @ inverse @ g / 2
    size = len(w)
    for q in range(size):
        system = torch.zeros(size + 1, size + 1, dtype=torch.float64)
        system[:size, :size], system[q, size], system[size, q] = fisher, 1, 1
        step = torch.linalg.solve(system, torch.cat([-g, -w[q : q + 1]]))[:size]
        change = g @ step + step @ fisher @ step / 2
        torch.testing.assert_close(estimate.scores[name].flatten()[q] - constant, change, rtol=1e-6, atol=1e-9)
        only = {n: m.clone() for n, m in ALL.items()}
        only[name].view(-1)[q] = False
        assert estimate.update is not None
        moved = estimate.update(only)[name].flatten()
        torch.testing.assert_close(moved, (w + step) * only[name].flatten(), rtol=1e-6, atol=1e-9)


def test_weights_pruned_before_are_out_of_the_matrix() -> None:
    kept = {n: m.clone() for n, m in ALL.items()}
    kept["a"][0, 1] = False
    weights = {n: w * kept[n] for n, w in WEIGHTS.items()}
    without = [i for i in range(8) if i != 1]
    scores = WoodFisher(damping=1e-3).estimate(LOSS, weights, kept).scores["a"].flatten()
    g = LOSS.given["a"].flatten(1)[:, without]
    inverse = torch.linalg.inv(1e-3 * torch.eye(7, dtype=torch.float64) + g.T @ g / 9)
    expected = weights["a"].flatten()[without] ** 2 / (2 * inverse.diagonal())
    torch.testing.assert_close(scores[without], expected, rtol=1e-6, atol=0)
    assert scores[1] == 0


def test_layers_are_taken_in_groups_that_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = WoodFisher().estimate(LOSS, WEIGHTS, ALL).scores
    monkeypatch.setattr("snowsdeploy.selectors.woodfisher._BYTES", 1)
    apart = WoodFisher().estimate(LOSS, WEIGHTS, ALL).scores
    assert all(torch.equal(whole[n], apart[n]) for n in whole)
