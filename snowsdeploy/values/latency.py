"""How fast files are, on which machine."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from snowsdeploy.values.base import Artifact, Tristate
from snowsdeploy.values.numbers import Above0, Count, From0, Level, Milliseconds, Size, near, require_ordered


class LatencyCase(Artifact):
    """What was put in at once.

    Attributes:
        batch: Items.
        size: Of each, where a model takes several: height x width.
    """

    batch: Size
    size: str = ""

    @property
    def at(self) -> str:
        """`8`, or `8 of 320x320`: what tells one measurement from another."""
        return f"{self.batch} of {self.size}" if self.size else str(self.batch)


class LatencySeries(LatencyCase):
    """Latencies of one file at one batch size, milliseconds a call.

    Attributes:
        p50_low_ms: Lower end of the median's interval, at the ratio's level of confidence.
        p50_high_ms: Its upper end.
    """

    role: Literal["dense", "sparse"]
    runs: Size
    mean_ms: Milliseconds
    p50_ms: Milliseconds
    p50_low_ms: Milliseconds
    p50_high_ms: Milliseconds
    p90_ms: Milliseconds
    p99_ms: Milliseconds
    cov: From0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        require_ordered(p50_low_ms=self.p50_low_ms, p50_ms=self.p50_ms, p50_high_ms=self.p50_high_ms)
        require_ordered(p50_ms=self.p50_ms, p90_ms=self.p90_ms, p99_ms=self.p99_ms)
        return self


class LatencyRatio(LatencyCase):
    """Dense over sparse median latency at one batch size (above 1: sparse is faster), with a bootstrap interval."""

    speedup: Above0
    low: Above0
    high: Above0
    confidence: Level = 0.95

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        require_ordered(low=self.low, speedup=self.speedup, high=self.high)
        return self


class Latency(Artifact):
    """Dense and sparse timed in one run, interleaved.

    Attributes:
        requested: The provider asked for.
        providers: Providers that really ran nodes, by number of nodes, from ORT's graph assignment.
        uses_sparsity: Whether any provider that ran can use the pattern.
        note: What a reader must know about these figures.
    """

    requested: str
    providers: dict[str, Count]
    uses_sparsity: Tristate
    series: Annotated[tuple[LatencySeries, ...], Field(min_length=1)]
    ratios: Annotated[tuple[LatencyRatio, ...], Field(min_length=1)]
    note: str = ""

    @model_validator(mode="after")
    def _ratios_are_of_series(self) -> Self:
        timed = {(s.role, s.at): s.p50_ms for s in self.series}
        times = Counter(ratio.at for ratio in self.ratios)
        wanted = Counter((role, at) for at in times for role in ("dense", "sparse"))
        if Counter((s.role, s.at) for s in self.series) != wanted or max(times.values()) > 1:
            raise ValueError("series and ratios must be one dense series, one sparse series and one ratio a batch size")
        for ratio in self.ratios:
            quotient = timed["dense", ratio.at] / timed["sparse", ratio.at]
            if not near(ratio.speedup, quotient, 0.0):
                raise ValueError(
                    f"speedup at batch {ratio.at} is {ratio.speedup:g}, but the medians of the series give {quotient:g}"
                )
        return self


class Environment(Artifact):
    """The machine and the versions behind every figure."""

    machine: str
    cpu: str
    cores: Size
    memory_bytes: Count
    gpus: tuple[str, ...]
    os: str
    versions: dict[str, str]
