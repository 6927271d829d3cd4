"""Files side by side, and where the time of each goes."""

from __future__ import annotations

from pathlib import Path

from snowsdeploy.artifacts.base import Artifact
from snowsdeploy.artifacts.latency import Environment


class TimedFile(Artifact):
    """Latencies of a file at one batch size, milliseconds a call; the median with its interval."""

    file: Path
    batch: int
    runs: int
    p50_ms: float
    p50_low_ms: float
    p50_high_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    cov: float
    images_per_second: float


class FileRatio(Artifact):
    """Median of the baseline over that of a file (above 1: the file is faster), with its interval."""

    file: Path
    baseline: Path
    batch: int
    speedup: float
    low: float
    high: float


class OperatorTime(Artifact):
    """Time of one operator in a call.

    Attributes:
        ms: Milliseconds of all its nodes.
        share: Of all nodes, 0 to 1.
        pruned_ms: Milliseconds in nodes that multiply by a pruned weight.
    """

    operator: str
    ms: float
    share: float
    pruned_ms: float


class ProfiledFile(Artifact):
    """Where the time of a file goes.

    Attributes:
        pruned_share: Share of the time in products with pruned weights.
        best_speedup: What sparse tensor cores could reach at most, if those products ran twice as fast.
    """

    file: Path
    operators: tuple[OperatorTime, ...]
    pruned_share: float
    best_speedup: float


class Profile(Artifact):
    """Files side by side."""

    provider: str
    environment: Environment
    series: tuple[TimedFile, ...]
    ratios: tuple[FileRatio, ...]
    files: tuple[ProfiledFile, ...]
    note: str = ""
