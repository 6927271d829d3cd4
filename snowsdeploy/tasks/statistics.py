"""Intervals and tests of what was measured item by item, by scipy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from snowsdeploy.values import Drop, Estimate

RESAMPLES = 2000
Statistic = Callable[[NDArray[np.intp]], float]  # of the items at some positions, with repetitions


def proportion(successes: int, total: int, confidence: float = 0.95) -> Estimate:
    """A proportion with Wilson's score interval (Wilson 1927)."""
    interval = stats.binomtest(successes, total).proportion_ci(confidence, method="wilson")
    return Estimate(
        value=successes / total, low=float(interval.low), high=float(interval.high), items=total, confidence=confidence
    )


def share(right: NDArray[np.bool_]) -> Estimate:
    """The proportion of what is true, `[n]`."""
    return proportion(int(right.sum()), len(right))


def paired_test(dense: NDArray[np.bool_], sparse: NDArray[np.bool_], confidence: float = 0.95) -> Drop:
    """McNemar's exact test (McNemar 1947), and the drop's interval by Bonett & Price (2012).

    Args:
        dense: Which items the dense model gets right, `[n]`.
        sparse: The same for the sparse model.
        confidence: Level of the interval.
    """
    n = len(dense)
    only_dense, only_sparse = int((dense & ~sparse).sum()), int((~dense & sparse).sum())
    discordant = only_dense + only_sparse
    p_value = float(stats.binomtest(only_dense, discordant).pvalue) if discordant else 1.0
    # Bonett & Price: one discordant pair of each kind is added, which keeps the interval honest for small counts.
    p, q = (only_dense + 1) / (n + 2), (only_sparse + 1) / (n + 2)
    half = float(stats.norm.ppf(0.5 + confidence / 2)) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return Drop(
        value=100 * (only_dense - only_sparse) / n,
        low=100 * max(p - q - half, -1.0),
        high=100 * min(p - q + half, 1.0),
        method="Bonett & Price",
        p_value=p_value,
        note=f"{only_dense} items only the dense model gets right, {only_sparse} only the sparse",
        confidence=confidence,
    )


def bootstrap(items: int, statistic: Statistic, confidence: float = 0.95) -> tuple[float, float] | None:
    """The percentile bootstrap's interval (Efron 1979) of a statistic of resampled items; None of a single item.

    It is widened to hold the statistic of the items themselves: a statistic such as mean IoU, over the classes that
    occur, is biased on resamples that miss rare classes, by so much that all of them may lie on one side of it.

    Args:
        items: How many there are.
        statistic: Takes positions of items. Given both models' values of the same items, the bootstrap is paired.
        confidence: Level of the interval.
    """
    if items < 2:
        return None

    def each(positions: NDArray[np.intp]) -> np.float64:
        return np.float64(statistic(positions))

    found = stats.bootstrap(
        (np.arange(items),),
        each,
        n_resamples=RESAMPLES,
        vectorized=False,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    point = statistic(np.arange(items))
    return min(float(found.low), point), max(float(found.high), point)


def mean(values: NDArray[np.float64]) -> Estimate:
    """The mean of a value an item, with the bootstrap's interval."""
    low, high = bootstrap(len(values), lambda at: float(values[at].mean())) or (None, None)
    return Estimate(value=float(values.mean()), low=low, high=high, items=len(values))


def mean_drop(dense: NDArray[np.float64], sparse: NDArray[np.float64], factor: float) -> Drop:
    """The mean of the paired differences, with the bootstrap's interval.

    Args:
        dense: A value an item, `[n]`; larger is better.
        sparse: The same of the sparse model.
        factor: Into the unit of differences.
    """
    worse = factor * (dense - sparse)
    low, high = bootstrap(len(worse), lambda at: float(worse[at].mean())) or (None, None)
    return Drop(value=float(worse.mean()), low=low, high=high, method="paired bootstrap" if low is not None else "")
