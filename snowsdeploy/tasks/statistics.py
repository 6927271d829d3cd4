"""Intervals and tests of counted results, by scipy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from snowsdeploy.values import PairedTest, Proportion


def proportion(successes: int, total: int, confidence: float = 0.95) -> Proportion:
    """A proportion with Wilson's score interval (Wilson 1927)."""
    interval = stats.binomtest(successes, total).proportion_ci(confidence, method="wilson")
    return Proportion(
        successes=successes, total=total, low=float(interval.low), high=float(interval.high), confidence=confidence
    )


def paired_test(dense: NDArray[np.bool_], sparse: NDArray[np.bool_], confidence: float = 0.95) -> PairedTest:
    """McNemar's exact test (McNemar 1947), and the drop's interval by Bonett & Price (2012).

    Args:
        dense: Which images the dense model gets right, `[n]`.
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
    return PairedTest(
        only_dense=only_dense,
        only_sparse=only_sparse,
        p_value=p_value,
        drop=100 * (only_dense - only_sparse) / n,
        drop_low=100 * max(p - q - half, -1.0),
        drop_high=100 * min(p - q + half, 1.0),
        confidence=confidence,
    )
