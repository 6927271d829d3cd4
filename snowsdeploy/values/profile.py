"""Files side by side, and where the time of each goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from snowsdeploy.values.base import Artifact
from snowsdeploy.values.latency import Environment
from snowsdeploy.values.numbers import Above0, From0, Milliseconds, Size, Whole, require_ordered

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
    batch: Size
    copies: Copies = "included"
    runs: Size
    p50_ms: Milliseconds
    p50_low_ms: Milliseconds
    p50_high_ms: Milliseconds
    p90_ms: Milliseconds
    p95_ms: Milliseconds
    p99_ms: Milliseconds
    cov: From0
    images_per_second: Above0
    host_bytes: Whole | None = None
    device_bytes: Whole | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        require_ordered(p50_low_ms=self.p50_low_ms, p50_ms=self.p50_ms, p50_high_ms=self.p50_high_ms)
        require_ordered(p50_ms=self.p50_ms, p90_ms=self.p90_ms, p95_ms=self.p95_ms, p99_ms=self.p99_ms)
        return self


class FileRatio(Artifact):
    """Median of the baseline over that of a file (above 1: the file is faster), with its interval."""

    name: str
    baseline: str
    batch: Size
    copies: Copies = "included"
    speedup: Above0
    low: Above0
    high: Above0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        require_ordered(low=self.low, speedup=self.speedup, high=self.high)
        return self


class OperatorTime(Artifact):
    """Time of one operator in a call.

    Attributes:
        ms: Milliseconds of all its nodes.
        share: Of all nodes, 0 to 1.
        pruned_ms: Milliseconds in nodes that multiply by a pruned weight.
    """

    operator: str
    ms: From0
    share: From0
    pruned_ms: From0


class ProfiledFile(Artifact):
    """Where the time of a file goes.

    Attributes:
        pruned_share: Share of the time in products with pruned weights; None where an engine runs as one operator.
        best_speedup: What sparse tensor cores could reach at most, if those products ran twice as fast.
    """

    name: str
    file: Path
    operators: tuple[OperatorTime, ...]
    pruned_share: From0 | None
    best_speedup: Above0 | None


class GpuReading(Artifact):
    """The state of a GPU at one moment; a value that the driver does not tell is None.

    Attributes:
        throttled: Why its clocks are held down, in NVML's words; empty when they are not.
    """

    moment: str
    gpu: str
    sm_clock_mhz: Whole | None
    memory_clock_mhz: Whole | None
    power_w: From0 | None
    temperature_c: Whole | None
    throttled: tuple[str, ...]


class Profile(Artifact):
    """Files side by side."""

    provider: str
    environment: Environment
    series: Annotated[tuple[TimedFile, ...], Field(min_length=1)]
    ratios: tuple[FileRatio, ...]
    files: tuple[ProfiledFile, ...]
    gpu: tuple[GpuReading, ...] = ()
    note: str = ""
