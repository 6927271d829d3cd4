"""How fast files are, on which machine."""

from __future__ import annotations

from typing import Literal

from snowsdeploy.values.base import Artifact, Tristate


class LatencyCase(Artifact):
    """What was put in at once.

    Attributes:
        batch: Items.
        size: Of each, where a model takes several: height x width.
    """

    batch: int
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
    runs: int
    mean_ms: float
    p50_ms: float
    p50_low_ms: float
    p50_high_ms: float
    p90_ms: float
    p99_ms: float
    cov: float


class LatencyRatio(LatencyCase):
    """Dense over sparse median latency at one batch size (above 1: sparse is faster), with a bootstrap interval."""

    speedup: float
    low: float
    high: float
    confidence: float = 0.95


class Latency(Artifact):
    """Dense and sparse timed in one run, interleaved.

    Attributes:
        requested: The provider asked for.
        providers: Providers that really ran nodes, by number of nodes, from ORT's graph assignment.
        uses_sparsity: Whether any provider that ran can use the pattern.
        note: What a reader must know about these figures.
    """

    requested: str
    providers: dict[str, int]
    uses_sparsity: Tristate
    series: tuple[LatencySeries, ...]
    ratios: tuple[LatencyRatio, ...]
    note: str = ""


class Environment(Artifact):
    """The machine and the versions behind every figure."""

    machine: str
    cpu: str
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...]
    os: str
    versions: dict[str, str]
