"""Report -> a benchmark array `{name, unit, value, range, extra}`, which dashboards of CI servers plot over time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TypedDict

from snowsdeploy.values import SHARE, Report, Variant


class Entry(TypedDict):
    """One figure.

    Attributes:
        range: Its uncertainty as text, empty when there is none.
        extra: What it was measured on.
    """

    name: str
    unit: str
    value: float
    range: str
    extra: str


def render_benchmark(report: Report) -> str:
    """JSON; every figure is one where smaller is better, so that one dashboard takes them all."""
    model = report.source.arch or report.source.source
    rows = [row for variant in report.variants for row in _rows(variant, f"{model} {variant.precision}")]
    return json.dumps(rows, indent=2) + "\n"


def _rows(variant: Variant, model: str) -> Iterator[Entry]:
    size = variant.sparse.size_bytes / 2**20
    yield Entry(name=f"{model} size", unit="MiB", value=size, range="", extra=variant.sparse.path.name)
    if variant.parity is not None:
        worst = variant.parity.worst_relative_l2
        yield Entry(name=f"{model} parity error", unit="relative", value=worst, range="", extra=variant.parity.provider)
    accuracy = variant.accuracy
    for metric in accuracy.metrics if accuracy else ():
        if accuracy is None or (metric.usual_drop is None and metric is not accuracy.metric):
            continue
        drop, unit = metric.drop, "points" if metric.unit == SHARE else metric.unit
        interval = "" if drop.low is None or drop.high is None else f"{drop.low:.2f} to {drop.high:.2f}"
        items = f"{accuracy.data.items} images"
        yield Entry(name=f"{model} {metric.label} drop", unit=unit, value=drop.value, range=interval, extra=items)
    if variant.latency is not None:
        for series in variant.latency.series:
            if series.role == "sparse":
                spread = f"{series.p50_low_ms:.4g} to {series.p50_high_ms:.4g}"
                name = f"{model} latency, batch {series.at}"
                extra = f"{series.runs} calls on {variant.latency.requested}, p99 {series.p99_ms:.4g} ms"
                yield Entry(name=name, unit="ms", value=series.p50_ms, range=spread, extra=extra)
