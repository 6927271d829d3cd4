"""The search against brute force, and what it promises for any scores."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.permutation.search import Search, find_order


def kept(scores: np.ndarray, order: np.ndarray, pattern: Pattern) -> float:
    groups = scores[order].reshape(-1, pattern.m, scores.shape[1])
    return float(np.sort(groups, axis=1)[:, -pattern.n :].sum() / scores.sum())


def best_kept(scores: np.ndarray, pattern: Pattern) -> float:
    """Every partition into groups of m."""
    value = {
        group: np.sort(scores[list(group)], axis=0)[-pattern.n :].sum()
        for group in itertools.combinations(range(len(scores)), pattern.m)
    }

    def best(rest: tuple[int, ...]) -> float:
        if not rest:
            return 0.0
        return max(
            value[rest[0], *others] + best(tuple(c for c in rest[1:] if c not in others))
            for others in itertools.combinations(rest[1:], pattern.m - 1)
        )

    return float(best(tuple(range(len(scores)))) / scores.sum())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("channels", "rows", "pattern"),
    [(8, 20, Pattern(2, 4)), (12, 30, Pattern(2, 4)), (12, 5, Pattern(1, 4)), (10, 9, Pattern(1, 2)),
     (12, 10, Pattern(2, 3))],
)  # fmt: skip
def test_small_problems_are_solved_exactly(channels: int, rows: int, pattern: Pattern, seed: int) -> None:
    scores = np.random.default_rng(seed).random((channels, rows)) ** 2
    found = find_order(scores, pattern, Search(kicks=20))
    assert found.after == pytest.approx(best_kept(scores, pattern), rel=1e-12)
    assert found.after == pytest.approx(kept(scores, found.order, pattern), rel=1e-12)
    assert found.before == pytest.approx(kept(scores, np.arange(channels), pattern), rel=1e-12)


def test_no_exchange_of_two_channels_is_left_that_gains() -> None:
    pattern, scores = Pattern(2, 4), np.random.default_rng(0).random((24, 40)) ** 3
    found = find_order(scores, pattern, Search(kicks=3))
    for a, b in itertools.combinations(range(24), 2):
        order = found.order.copy()
        order[[a, b]] = order[[b, a]]
        assert kept(scores, order, pattern) <= found.after * (1 + 1e-5)


def test_a_permuted_optimum_is_found_again() -> None:
    """Two strong channels a group would keep everything; they start in groups of four strong ones."""
    scores = np.zeros((32, 6))
    scores[:16] = 1 + np.random.default_rng(0).random((16, 6))
    found = find_order(scores, Pattern(2, 4), Search())
    assert found.before == pytest.approx(0.5, abs=0.2)
    assert found.after == pytest.approx(1.0)


def test_the_search_repeats_and_its_order_is_a_permutation() -> None:
    scores = np.random.default_rng(0).random((32, 50))
    first, second = (find_order(scores, Pattern(2, 4), Search(kicks=5, seed=3)) for _ in range(2))
    assert np.array_equal(first.order, second.order)
    assert sorted(first.order.tolist()) == list(range(32))


@pytest.mark.parametrize("scores", [np.zeros((8, 3)), np.ones((8, 3))])
def test_nothing_moves_where_nothing_can_be_gained(scores: np.ndarray) -> None:
    found = find_order(scores, Pattern(2, 4), Search())
    assert found.order.tolist() == list(range(8))
    assert found.before == found.after


def test_more_search_is_not_worse() -> None:
    scores = np.random.default_rng(1).random((32, 30)) ** 4
    short, long = (find_order(scores, Pattern(1, 4), Search(kicks=kicks)).after for kicks in (0, 30))
    assert long >= short
