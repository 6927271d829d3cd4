"""Masked least squares: the damping's scale, and rows solved a chunk at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from snowsdeploy.solver.least_squares import MaskedCholesky, SharedCholesky, masked_least_squares, solve_and_factor


def problem(rows: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gram matrix of inputs far from unit scale, right-hand sides, and a mask of equally many in each row."""
    generator = torch.Generator().manual_seed(0)
    x = 7 * torch.randn(40, width, dtype=torch.float64, generator=generator)
    mask = torch.rand(rows, width, generator=generator).argsort(1) < width // 2
    return x.T @ x, torch.randn(rows, width, dtype=torch.float64, generator=generator) @ (x.T @ x), mask


def by_hand(gram: Tensor, cross: Tensor, mask: Tensor, ridge: float) -> Tensor:
    solved = torch.zeros_like(cross)
    for row, kept in enumerate(mask):
        system = gram[kept][:, kept] + ridge * torch.eye(int(kept.sum()), dtype=gram.dtype)
        solved[row, kept] = torch.linalg.solve(system, cross[row, kept])
    return solved


@pytest.mark.parametrize("limit", [0, 10**9])
def test_damping_is_relative_to_the_mean_of_the_diagonal(limit: int) -> None:
    gram, cross, mask = problem(3, 8)
    ridge = 0.1 * float(gram.diagonal().mean())
    expected = by_hand(gram, cross, mask, ridge)
    for scale in (1.0, 1e6):  # of the squares of the inputs
        torch.testing.assert_close(masked_least_squares(scale * gram, scale * cross, mask, 0.1), expected)
        system = scale * gram, scale * cross, mask, 0.1
        solved, factored = solve_and_factor(*system, dtype=torch.float64, limit=limit)
        torch.testing.assert_close(solved, expected)
        whole = torch.linalg.solve(gram + ridge * torch.eye(8, dtype=gram.dtype), (cross * mask).T).T * mask
        torch.testing.assert_close(factored(scale * cross), expected if limit else whole)


@pytest.mark.parametrize(("chunk", "sizes"), [(0, [1] * 7), (1, [1] * 7), (2, [2, 2, 2, 1]), (3, [3, 3, 1]), (7, [7])])
def test_rows_are_solved_once_each_whatever_the_chunk(chunk: int, sizes: list[int]) -> None:
    gram, cross, mask = problem(7, 8)
    expected = by_hand(gram, cross, mask, 0.0)
    fits = chunk * 4 * 4 * 8  # so many rows of four kept float64 columns
    torch.testing.assert_close(masked_least_squares(gram, cross, mask, chunk_bytes=fits), expected)
    solved, factored = solve_and_factor(gram, cross, mask, 0.0, dtype=torch.float64, chunk_bytes=fits)
    torch.testing.assert_close(solved, expected)
    assert isinstance(factored, MaskedCholesky)
    assert [len(factor) for factor in factored.factors] == sizes
    torch.testing.assert_close(factored(cross), expected)
    solved, factored = solve_and_factor(gram, cross, mask, 0.0, dtype=torch.float64, limit=0, chunk_bytes=fits)
    torch.testing.assert_close(solved, expected)
    assert isinstance(factored, SharedCholesky)


@pytest.mark.parametrize("limit", [0, 10**9])
def test_the_ridge_pulls_to_the_anchor(limit: int) -> None:
    gram, cross, mask = problem(3, 8)
    anchor = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ridge = 0.1 * float(gram.diagonal().mean())
    expected = by_hand(gram, cross + ridge * anchor, mask, ridge)
    torch.testing.assert_close(masked_least_squares(gram, cross, mask, 0.1, anchor=anchor), expected)
    solved, _ = solve_and_factor(gram, cross, mask, 0.1, anchor=anchor, dtype=torch.float64, limit=limit)
    torch.testing.assert_close(solved, expected)


def test_nothing_pruned_moves_nothing_however_steep_the_spectrum() -> None:
    """At zero instead, weights of small inputs would shrink, and one of a dead input vanish."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 8, dtype=torch.float64, generator=generator) * torch.logspace(0, -6, 8, dtype=torch.float64)
    x[:, 3] = 0
    weight = torch.randn(5, 8, dtype=torch.float64, generator=generator)
    gram, every = x.T @ x, torch.ones(5, 8, dtype=torch.bool)
    solved = masked_least_squares(gram, weight @ gram, every, 1e-3, anchor=weight)
    torch.testing.assert_close(solved, weight)
    shrunk = masked_least_squares(gram, weight @ gram, every, 1e-3)
    assert float((shrunk - weight).norm() / weight.norm()) > 0.5
    half = every.clone()
    half[:, 1] = False
    torch.testing.assert_close(masked_least_squares(gram, weight @ gram, half, 1e-3, anchor=weight)[:, 3], weight[:, 3])
