"""Latency of the dense and the sparse file, interleaved in one run so that drift of the machine hits both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from snowsdeploy.runtime.providers import Provider
from snowsdeploy.runtime.session import Feed, OrtSession
from snowsdeploy.values import Latency, LatencyRatio, LatencySeries, Role

UNSTABLE_COV = 0.025  # trtexec's limit for "GPU compute time is unstable"
CONFIDENCE = 0.95
RESAMPLES = 2000
OPENINGS = 10

Times = NDArray[np.float64]


def measure_latency(
    open_files: Callable[[], tuple[OrtSession, OrtSession]],
    make_input: Callable[[int], Feed],
    batch_sizes: Sequence[int],
    *,
    runs: int = 50,
    warmup: int = 3,
    openings: int = 1,
    seed: int = 0,
    pattern: str = "2:4",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Latency:
    """Time both files, in random order within each pair of calls; copies to and from a device are included.

    Two sessions of one file differ by a percent or two, by where their memory lies. That is no property of the file,
    so both are opened anew several times, and the interval is over openings too.

    Args:
        open_files: Opens the dense and the sparse file.
        make_input: Batch size -> images.
        batch_sizes: Each is timed.
        runs: Timed calls of each file at each batch size, shared out between the openings.
        warmup: Calls before timing, of each file at each opening and batch size.
        openings: How often; once where opening compiles an engine.
        seed: Of the order and of the bootstrap.
        pattern: Of the pruned layers, for the note.
        progress: Told `(done, total)` openings.
    """
    rng = np.random.default_rng(seed)
    images = {batch: make_input(batch) for batch in batch_sizes}
    openings = max(1, min(openings, runs // 2))
    calls = -(-runs // openings)
    times: dict[int, list[tuple[Times, Times]]] = {batch: [] for batch in batch_sizes}
    for index in range(openings):
        dense, sparse = open_files()
        for batch in batch_sizes:
            times[batch].append(_interleaved(dense, sparse, images[batch], runs=calls, warmup=warmup, rng=rng))
        progress(index + 1, openings)
    series, ratios = [], []
    for batch in batch_sizes:
        a, b = (np.stack(side) for side in zip(*times[batch], strict=True))
        series += [_series("dense", batch, a, rng), _series("sparse", batch, b, rng)]
        ratios.append(speedup(a, b, batch, rng))
    return Latency(
        requested=sparse.provider.name,
        providers=sparse.placement,
        uses_sparsity=sparse.provider.uses_sparsity,
        series=tuple(series),
        ratios=tuple(ratios),
        note=latency_note(sparse.provider, series, pattern),
    )


def _interleaved(
    dense: OrtSession,
    sparse: OrtSession,
    images: Feed,
    *,
    runs: int,
    warmup: int,
    rng: np.random.Generator,
) -> tuple[Times, Times]:
    times: tuple[list[float], list[float]] = ([], [])
    sessions = (dense, sparse)
    for _ in range(warmup):
        for session in sessions:
            session.run(images)
    for _ in range(runs):
        for side in rng.permutation(2):
            start = time.perf_counter_ns()
            sessions[side].run(images)
            times[side].append((time.perf_counter_ns() - start) / 1e6)
    return np.array(times[0]), np.array(times[1])


def _series(role: Role, batch: int, samples: Times, rng: np.random.Generator) -> LatencySeries:
    draws = _draws(samples, rng)
    p50, p90, p99 = np.percentile(samples, [50, 90, 99])
    low, high = interval(np.median(samples.reshape(-1)[draws], axis=1), around=float(p50))
    return LatencySeries(
        role=role,
        batch=batch,
        runs=samples.size,
        mean_ms=float(samples.mean()),
        p50_ms=float(p50),
        p50_low_ms=low,
        p50_high_ms=high,
        p90_ms=float(p90),
        p99_ms=float(p99),
        cov=float(samples.std(ddof=1) / samples.mean()),
    )


def speedup(
    dense: Times, sparse: Times, batch: int, rng: np.random.Generator, confidence: float = CONFIDENCE
) -> LatencyRatio:
    """Ratio of medians with a percentile bootstrap over blocks of pairs of calls.

    Calls that follow one another share the state of the machine (clock, temperature, other work), so whole stretches
    are resampled, not calls: a circular block bootstrap (Politis & Romano 1992) of percentile intervals (Efron &
    Tibshirani 1993, chapter 13). Of several openings of the files, openings are resampled first (Davison & Hinkley
    1997, section 3.8).

    Args:
        dense: Latencies `[openings, calls]` or `[calls]`, milliseconds.
        sparse: The same; call i of both ran next to each other.
        batch: Recorded.
        rng: Source of the resamples.
        confidence: Level of the interval.
    """
    draws = _draws(dense, rng)
    ratios = np.median(dense.reshape(-1)[draws], axis=1) / np.median(sparse.reshape(-1)[draws], axis=1)
    value = float(np.median(dense) / np.median(sparse))
    low, high = interval(ratios, confidence, around=value)
    return LatencyRatio(
        batch=batch,
        speedup=value,
        low=low,
        high=high,
        confidence=confidence,
    )


def interval(values: NDArray[np.float64], confidence: float = CONFIDENCE, *, around: float) -> tuple[float, float]:
    """The percentile interval of a bootstrap's resampled values, widened to hold the estimate itself.

    Args:
        values: Of the resamples.
        confidence: Level of the interval.
        around: The estimate; medians of few calls in blocks may all lie on one side of it.
    """
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return min(float(low), around), max(float(high), around)


def _draws(samples: Times, rng: np.random.Generator) -> NDArray[np.intp]:
    """Flat indices `[resamples, size]`: openings, and within each blocks of about `calls^(1/2)` neighbours."""
    openings, calls = np.atleast_2d(samples).shape
    length = max(1, round(calls**0.5))
    starts = rng.integers(0, calls, (RESAMPLES, openings, -(-calls // length), 1))  # wrapped around the end
    within = ((starts + np.arange(length)) % calls).reshape(RESAMPLES, openings, -1)[:, :, :calls]
    which = rng.integers(0, openings, (RESAMPLES, openings, 1))
    draws: NDArray[np.intp] = (which * calls + within).reshape(RESAMPLES, -1)
    return draws


def latency_note(provider: Provider, series: Sequence[LatencySeries], pattern: str) -> str:
    """What a reader must know about figures of a provider."""
    parts = []
    if provider.uses_sparsity == "no":
        parts.append(
            f"{provider.ep} multiplies zeros like any value: {pattern} brings no speed here and a ratio near 1 "
            "is expected."
        )
    if pattern != "2:4":
        parts.append(f"Sparse tensor cores run 2:4 and gain nothing from {pattern}.")
    elif provider.uses_sparsity == "no":
        parts.append("Speed needs TensorRT on a GPU with sparse tensor cores.")
    noisy = [s for s in series if s.cov > UNSTABLE_COV]
    if noisy:
        worst = max(s.cov for s in noisy)
        parts.append(f"Timings are unstable: coefficient of variation up to {100 * worst:.0f} % (above 2.5 %).")
    return " ".join(parts)
