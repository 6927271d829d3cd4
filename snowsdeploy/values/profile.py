"""Files side by side, and where the time of each goes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from snowsdeploy.values.base import Artifact
from snowsdeploy.values.latency import Environment

Copies = Literal["included", "excluded"]


class TimedFile(Artifact):
    """Latencies of a file at one batch size, milliseconds a call; the median with its interval.

    Attributes:
        name: Tells it from the others: the file, and how it was run where that differs.
        copies: Whether a call copies images to the device and outputs back.
        host_bytes: Growth of the process' peak memory by loading and running it; None when not measured.
        device_bytes: Growth of the GPU's used memory by the same.
    """

    name: str
    file: Path
    batch: int
    copies: Copies = "included"
    runs: int
    p50_ms: float
    p50_low_ms: float
    p50_high_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    cov: float
    images_per_second: float
    host_bytes: int | None = None
    device_bytes: int | None = None


class FileRatio(Artifact):
    """Median of the baseline over that of a file (above 1: the file is faster), with its interval."""

    name: str
    baseline: str
    batch: int
    copies: Copies = "included"
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
        pruned_share: Share of the time in products with pruned weights; None where an engine runs as one operator.
        best_speedup: What sparse tensor cores could reach at most, if those products ran twice as fast.
    """

    name: str
    file: Path
    operators: tuple[OperatorTime, ...]
    pruned_share: float | None
    best_speedup: float | None


class GpuReading(Artifact):
    """The state of a GPU at one moment; a value that the driver does not tell is None.

    Attributes:
        throttled: Why its clocks are held down, in NVML's words; empty when they are not.
    """

    moment: str
    gpu: str
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    power_w: float | None
    temperature_c: int | None
    throttled: tuple[str, ...]


class Profile(Artifact):
    """Files side by side."""

    provider: str
    environment: Environment
    series: tuple[TimedFile, ...]
    ratios: tuple[FileRatio, ...]
    files: tuple[ProfiledFile, ...]
    gpu: tuple[GpuReading, ...] = ()
    note: str = ""
