"""Intervals and tests against scipy and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from snowsdeploy.measure.latency import speedup
from snowsdeploy.tasks.any_output import MAX_ERROR, AnyOutput, relative_error
from snowsdeploy.tasks.classify import Classify
from snowsdeploy.tasks.statistics import bootstrap, paired_test, proportion


@settings(max_examples=50, deadline=None)
@given(total=st.integers(1, 500), data=st.data())
def test_wilson_interval_solves_its_quadratic(total: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, total))
    found = proportion(successes, total)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high
    z, p = stats.norm.ppf(0.975), successes / total
    for end in (found.low, found.high):
        assert (p - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / total, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 200))
def test_paired_test_counts_and_covers(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    dense, sparse = rng.random(n) < 0.9, rng.random(n) < 0.8
    found = paired_test(dense, sparse)
    b, c = (sum(x and not y for x, y in zip(*pair, strict=True)) for pair in ((dense, sparse), (sparse, dense)))
    assert found.note == f"{b} items only the dense model gets right, {c} only the sparse"
    assert found.value == pytest.approx(100 * (dense.mean() - sparse.mean()))
    assert found.low is not None
    assert found.high is not None
    assert -100 <= found.low <= found.high <= 100
    tail = sum(stats.binom.pmf(k, b + c, 0.5) for k in range(b + c + 1) if abs(k - (b + c) / 2) >= abs(b - (b + c) / 2))
    assert found.p_value == pytest.approx(min(tail, 1.0))


def test_interval_of_the_drop_covers_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(600):
        kind = rng.choice(3, 200, p=[0.08, 0.04, 0.88])  # only dense, only sparse, both alike: the drop is 4 points
        found = paired_test((kind == 0) | (kind == 2), (kind == 1) | (kind == 2))
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 4.0 <= found.high
    assert 0.92 <= inside / 600 <= 0.99


def test_equal_outputs_agree_fully() -> None:
    logits = np.random.default_rng(0).normal(size=(7, 5))
    same, cosine, kl = Classify().agreement(Classify().compare([logits], [logits]))
    assert (same.measured.value, kl.measured.value) == (1.0, 0.0)
    assert cosine.measured.value == pytest.approx(1.0)


def test_kl_is_that_of_the_softmax() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 6, 4))
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (a, b))
    assert Classify().compare([a], [b])["kl"].mean() == pytest.approx(float(np.mean((p * np.log(p / q)).sum(1))))


def test_speedup_interval_covers_a_known_ratio() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        dense, sparse = rng.lognormal(0.5, 0.1, 60), rng.lognormal(0.0, 0.1, 60)
        found = speedup(dense, sparse, 1, np.random.default_rng(seed))
        covered += found.low <= np.exp(0.5) <= found.high
    assert covered >= 85


def test_an_interval_holds_its_estimate_however_biased_resamples_are() -> None:
    """Of classes that occur in one item each, resamples miss a third: their number of classes is always smaller."""
    low, high = bootstrap(40, lambda at: float(len(set(at.tolist())))) or (0.0, 0.0)
    assert low < high == 40


def test_the_error_of_what_is_zero_has_an_end() -> None:
    zero, other = np.zeros((2, 3)), np.array([[0.0, 0.0, 0.0], [1e-30, 0.0, 0.0]])
    assert relative_error(zero, other).tolist() == [0.0, MAX_ERROR]
    assert relative_error(np.ones((1, 4)), 1.5 * np.ones((1, 4))).tolist() == [0.5]
    assert AnyOutput().agreement(AnyOutput().compare((zero,), (other,)))
