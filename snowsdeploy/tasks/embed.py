"""Embedding: the first output is a vector that stands for the item; recall@k, and cosine with the dense model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from snowsdeploy.errors import DataError
from snowsdeploy.tasks.any_output import cosine, cosine_measure, relative_error, relative_error_measure
from snowsdeploy.tasks.base import (
    USUAL_DROP,
    USUAL_REGRESSION,
    AbstractTask,
    Array,
    Output,
    Outputs,
    Scores,
    refuse_targets,
    shape_text,
)
from snowsdeploy.tasks.statistics import paired_test, share
from snowsdeploy.values import Agreement, Metric

RANKS = (1, 5, 10)
_ROWS = 1024  # queries at once


@final
@dataclass(frozen=True)
class Embed(AbstractTask):
    """A vector for each item, of the first output `[items, ...]`; what is alike points in the same direction."""

    name: ClassVar[str] = "embed"
    targets: ClassVar[str] = "a whole number for each item: items of one number are alike"
    metrics_named: ClassVar[tuple[str, ...]] = tuple(f"recall@{k}" for k in RANKS)

    def require_targets(self, targets: Array, output: Output, classes: Sequence[str] = ()) -> None:
        """Refuse what is no number an item, and items that are all of different numbers."""
        del classes
        if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
            raise refuse_targets(self, seen=shape_text(targets), output=output)
        if np.unique(targets, return_counts=True)[1].max(initial=0) < 2:
            raise DataError(
                "recall needs two items of one label",
                seen=f"{len(targets)} items, each of another label",
                allowed="labels of which at least one occurs twice",
                fix="add items of the same labels to --eval-data, or leave the labels out",
            )

    def compare(self, dense: Outputs, other: Outputs) -> Scores:
        """Cosine and relative error of each item."""
        return {
            "cosine": cosine(dense[0], other[0]),
            "relative_error": relative_error(dense[0], other[0]),
        }

    def agreement(self, compared: Scores) -> tuple[Agreement, ...]:
        """Means over the items."""
        return (
            cosine_measure(compared["cosine"], usual_limit=0.9),
            relative_error_measure(compared["relative_error"]),
        )

    def score(self, outputs: Outputs, targets: Array) -> Scores:
        """The vectors themselves, of length one: what is nearest is known when all are there."""
        vectors = outputs[0].reshape(len(targets), -1).astype(np.float64)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return {"vector": vectors / np.maximum(length, np.finfo(np.float64).tiny), "label": targets.astype(np.int64)}

    def metrics(self, dense: Scores, sparse: Scores, same_precision: Scores | None) -> tuple[Metric, ...]:
        """Recall@k: how often the k nearest others hold an item of the same label; items without one do not count."""
        a, b = hits(dense), hits(sparse)
        same = None if same_precision is None else hits(same_precision)
        return tuple(
            Metric(
                name=f"recall@{k}",
                label=f"recall@{k}",
                dense=share(a[k]),
                sparse=share(b[k]),
                same_precision=None if same is None else share(same[k]),
                drop=paired_test(a[k], b[k]),
                usual_drop=USUAL_DROP if k == 1 else None,
                usual_regression=USUAL_REGRESSION if k == 1 else None,
            )
            for k in a
        )


def hits(scores: Scores) -> dict[int, NDArray[np.bool_]]:
    """For each k: whether an item of the same label is among an item's k nearest others, by cosine.

    Args:
        scores: `vector` `[items, size]` of length one, and `label` `[items]`.
    """
    vectors, labels = scores["vector"], scores["label"]
    ranks = [k for k in RANKS if k < len(labels)]
    found: dict[int, list[NDArray[np.bool_]]] = {k: [] for k in ranks}
    for start in range(0, len(labels), _ROWS):
        places = np.arange(start, min(start + _ROWS, len(labels)))
        near = vectors[places] @ vectors.T
        near[np.arange(len(places)), places] = -np.inf  # an item does not find itself
        best = np.argsort(-near, axis=1, kind="stable")[:, : max(ranks)]
        right = labels[best] == labels[places, None]
        for k in ranks:
            found[k].append(right[:, :k].any(1))
    _, back, counts = np.unique(labels, return_inverse=True, return_counts=True)
    asked = counts[back] > 1
    return {k: np.concatenate(parts)[asked] for k, parts in found.items()}
