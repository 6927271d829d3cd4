"""Segmentation: the first output scores classes for each pixel; mean IoU, and pixels of the same class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from snowsdeploy.errors import DataError
from snowsdeploy.tasks.any_output import cosine, cosine_measure
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
from snowsdeploy.tasks.statistics import bootstrap, mean, mean_drop
from snowsdeploy.values import Agreement, Drop, Estimate, Metric


@final
@dataclass(frozen=True)
class Segment(AbstractTask):
    """One class for each pixel, of the first output `[items, classes, ...]`, or a foreground `[items, 1, ...]`.

    A single channel is foreground where it is above 0.5 if all its values are probabilities, above 0 if not.

    Attributes:
        ignore_index: Value of a mask's pixels that do not count.
    """

    name: ClassVar[str] = "segment"
    targets: ClassVar[str] = "a mask with the index of a class for each pixel, of the output's size"
    metrics_named: ClassVar[tuple[str, ...]] = ("miou", "pixel_accuracy")
    same: ClassVar[tuple[str, str]] = ("same", "pixels of the same class")
    ignore_index: int | None = None

    def require_targets(self, targets: Array, output: Output, classes: Sequence[str] = ()) -> None:
        """Refuse what is no mask, masks of another size, and classes that the model has no score for."""
        del classes
        _, shape = output
        whole = np.issubdtype(targets.dtype, np.integer) or targets.dtype == np.bool_
        if len(shape) < 2 or not whole or targets.ndim != len(shape):
            raise refuse_targets(self, seen=shape_text(targets), output=output)
        if any(size is not None and size != there for size, there in zip(shape[1:], targets.shape[1:], strict=True)):
            fix = "resize the masks to the output's size, without interpolation between classes"
            raise refuse_targets(self, seen=shape_text(targets), output=output, fix=fix)
        if shape[0] is not None:
            self._require_classes(targets, max(shape[0], 2))

    def _require_classes(self, targets: Array, classes: int) -> None:
        values = np.unique(targets[: 2**10])
        wrong = [int(v) for v in values if not 0 <= v < classes and v != self.ignore_index]
        if wrong:
            raise DataError(
                "the masks of --eval-data hold classes that the model has no score for",
                seen=", ".join(map(str, wrong[:4])),
                allowed=f"0 to {classes - 1}",
                fix=f"if it marks pixels that do not count: --ignore-index {wrong[-1]}",
            )

    def compare(self, dense: Outputs, other: Outputs) -> Scores:
        """Share of an item's pixels with the same class, and the cosine of its scores."""
        same = _classes(dense[0]) == _classes(other[0])
        return {"same": same.reshape(len(same), -1).mean(1), "cosine": cosine(dense[0], other[0])}

    def agreement(self, compared: Scores) -> tuple[Agreement, ...]:
        """Means over the items."""
        return (
            Agreement(
                name="same_pixels",
                label="pixels of the same class",
                measured=mean(compared["same"]),
                usual_limit=0.9,
            ),
            cosine_measure(compared["cosine"]),
        )

    def score(self, outputs: Outputs, targets: Array) -> Scores:
        """Pixels of each class in both, in the answer and in the mask, `[items, classes]` each."""
        count = max(outputs[0].shape[1], 2)
        answer, mask = _classes(outputs[0]), targets.astype(np.int64)
        counts = np.zeros((len(mask), count, count))
        for item, (a, m) in enumerate(zip(answer, mask, strict=True)):
            valid = np.ones(m.shape, dtype=bool) if self.ignore_index is None else m != self.ignore_index
            pairs = np.bincount(m[valid] * count + a[valid], minlength=count * count)
            counts[item] = pairs.reshape(count, count)
        return {"both": counts.diagonal(axis1=1, axis2=2), "answer": counts.sum(1), "mask": counts.sum(2)}

    def metrics(self, dense: Scores, sparse: Scores, same_precision: Scores | None) -> tuple[Metric, ...]:
        """Mean IoU over the classes that occur, pixels of all items together; share of right pixels an item."""
        right_a, right_b = _right(dense), _right(sparse)
        return (
            Metric(
                name="miou",
                label="mean IoU",
                dense=_iou(dense),
                sparse=_iou(sparse),
                same_precision=None if same_precision is None else _iou(same_precision),
                drop=_iou_drop(dense, sparse),
                usual_drop=USUAL_DROP,
                usual_regression=USUAL_REGRESSION,
            ),
            Metric(
                name="pixel_accuracy",
                label="right pixels",
                dense=mean(right_a),
                sparse=mean(right_b),
                same_precision=None if same_precision is None else mean(_right(same_precision)),
                drop=mean_drop(right_a, right_b, 100.0),
            ),
        )


def _classes(scores: Array) -> NDArray[np.int64]:
    """`[items, classes, ...]` -> the class of each pixel, `[items, ...]`."""
    if scores.shape[1] > 1:
        found: NDArray[np.int64] = scores.argmax(1)
        return found.astype(np.int64)
    probabilities = scores.min() >= 0 and scores.max() <= 1
    foreground: NDArray[np.bool_] = scores[:, 0] > (0.5 if probabilities else 0.0)
    return foreground.astype(np.int64)


def _mean_iou(both: NDArray[np.float64], answer: NDArray[np.float64], mask: NDArray[np.float64]) -> float:
    union = answer + mask - both
    there = union > 0
    return float((both[there] / union[there]).mean()) if there.any() else 1.0


def _iou_of(scores: Scores, at: NDArray[np.intp] | slice = slice(None)) -> float:
    return _mean_iou(*(scores[name][at].sum(0) for name in ("both", "answer", "mask")))


def _iou(scores: Scores) -> Estimate:
    items = len(scores["both"])
    low, high = bootstrap(items, lambda at: _iou_of(scores, at)) or (None, None)
    return Estimate(value=_iou_of(scores), low=low, high=high, items=items)


def _iou_drop(dense: Scores, sparse: Scores) -> Drop:
    def drop(at: NDArray[np.intp] | slice) -> float:
        return 100 * (_iou_of(dense, at) - _iou_of(sparse, at))

    low, high = bootstrap(len(dense["both"]), drop) or (None, None)
    method = "" if low is None else "paired bootstrap"
    return Drop(value=drop(slice(None)), low=low, high=high, method=method)


def _right(scores: Scores) -> NDArray[np.float64]:
    total = scores["mask"].sum(1)
    found: NDArray[np.float64] = scores["both"].sum(1) / np.maximum(total, 1.0)
    return np.where(total > 0, found, 1.0)
