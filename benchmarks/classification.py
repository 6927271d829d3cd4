"""The figures of a classifier that tables of benchmarks show."""

from __future__ import annotations

from typing import Any

from snowsdeploy.values import Accuracy, Estimate


def figures(found: Accuracy) -> dict[str, Any]:
    """Top-1 in percent with its 95 % interval, and the KL in nats."""
    metric = found.metric
    assert metric is not None
    assert metric.name == "top1"
    low, high = metric.sparse.low, metric.sparse.high
    assert low is not None
    assert high is not None
    return {
        "dense_top1": round(100 * metric.dense.value, 2),
        "top1": round(100 * metric.sparse.value, 2),
        "low": round(100 * low, 2),
        "high": round(100 * high, 2),
        "kl": round(divergence(found), 4),
    }


def divergence(found: Accuracy) -> float:
    """KL of the sparse logits from the dense ones, in nats."""
    return next(measure.measured.value for measure in found.agreement if measure.name == "kl")


def share(value: Estimate | None) -> str:
    """In percent with its interval; empty for None."""
    if value is None or value.low is None or value.high is None:
        return ""
    return f"{100 * value.value:.2f} [{100 * value.low:.2f}, {100 * value.high:.2f}]"
