"""Latency of two files: the order of the calls, and intervals that hold on correlated times and several openings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from snowsdeploy.measure.latency import measure_latency, speedup


def calls_of(seed: int, *, runs: int = 60, openings: int = 1, warmup: int = 0) -> list[str]:
    """Which file each call went to."""
    seen: list[str] = []
    provider = SimpleNamespace(name="cpu", ep="CPUExecutionProvider", uses_sparsity="no")

    def opened(role: str) -> Any:
        return SimpleNamespace(provider=provider, placement={}, run=lambda images: seen.append(role))

    measure_latency(
        lambda: (opened("dense"), opened("sparse")),
        lambda batch: np.zeros((batch, 1), np.float32),
        [1],
        runs=runs,
        warmup=warmup,
        openings=openings,
        seed=seed,
    )
    return seen


def test_the_files_of_a_pair_of_calls_run_in_random_order() -> None:
    seen = calls_of(0)
    pairs = list(zip(seen[::2], seen[1::2], strict=True))
    assert len(pairs) == 60
    assert {frozenset(pair) for pair in pairs} == {frozenset(("dense", "sparse"))}
    first = sum(pair[0] == "dense" for pair in pairs)
    assert 15 <= first <= 45
    assert calls_of(0) == seen
    assert calls_of(1) != seen  # drawn, not taking turns


def test_runs_are_shared_out_between_openings_after_their_warmup() -> None:
    seen = calls_of(0, runs=10, openings=3, warmup=2)
    assert len(seen) == 3 * 2 * (2 + 4)
    assert seen[:4] == seen[12:16] == seen[24:28] == ["dense", "sparse"] * 2


def correlated(rng: np.random.Generator, openings: int, calls: int, *, apart: float, rho: float) -> np.ndarray:
    """Log-latencies `[openings, calls]` of median zero: an offset for each opening, and an autoregression."""
    noise = rng.normal(0, 0.01, (openings, calls))
    for t in range(1, calls):
        noise[:, t] = rho * noise[:, t - 1] + (1 - rho**2) ** 0.5 * noise[:, t]
    return rng.normal(0, apart, (openings, 1)) + noise


@pytest.mark.parametrize(
    ("openings", "calls", "apart", "rho"),
    [
        (10, 12, 0.05, 0.0),  # openings differ by more than calls: resampling calls alone covers one time in five
        (1, 300, 0.0, 0.8),  # calls resemble their neighbours: blocks of one cover little more than one time in two
    ],
)
def test_the_interval_covers_where_times_are_correlated(openings: int, calls: int, apart: float, rho: float) -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(100):
        dense = np.exp(0.3 + correlated(rng, openings, calls, apart=apart, rho=rho))
        sparse = np.exp(correlated(rng, openings, calls, apart=apart, rho=rho))
        found = speedup(dense, sparse, 1, rng)
        inside += found.low <= np.exp(0.3) <= found.high
    assert inside >= 80


def test_of_three_openings_the_interval_is_that_of_a_resampled_median() -> None:
    """The median of three draws of three is the least with 7 of 27, so both ends of the 95 % are extremes."""
    dense = np.repeat([[1.0], [2.0], [3.0]], 9, axis=1)
    found = speedup(dense, np.ones_like(dense), 1, np.random.default_rng(0))
    assert (found.low, found.speedup, found.high) == (1.0, 2.0, 3.0)


def test_a_drift_widens_the_interval_by_the_root_of_a_blocks_length() -> None:
    """Blocks of 20 neighbours in 400 calls: the same times in any order give an interval narrower by about 4.5."""
    drift = 1 + np.arange(400) / 400
    widths = []
    for dense in (drift, np.random.default_rng(0).permutation(drift)):
        found = speedup(dense, np.ones(400), 1, np.random.default_rng(1))
        widths.append(found.high - found.low)
    assert 3 < widths[0] / widths[1] < 6
