"""Classification: the first output is a vector of logits; top-1, top-5, and agreement with the dense model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from snowsdeploy.errors import DataError
from snowsdeploy.tasks.any_output import cosine_measure
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
from snowsdeploy.tasks.statistics import mean, paired_test, share
from snowsdeploy.values import Agreement, Metric


@final
@dataclass(frozen=True)
class Classify(AbstractTask):
    """One class for each item, of the first output `[items, classes]`: the largest logit."""

    name: ClassVar[str] = "classify"
    targets: ClassVar[str] = "the index of its class for each item"
    metrics_named: ClassVar[tuple[str, ...]] = ("top1", "top5")
    divergence: ClassVar[tuple[str, str]] = ("kl", "KL")
    same: ClassVar[tuple[str, str]] = ("same", "same class")

    def require_targets(self, targets: Array, output: Output, classes: Sequence[str] = ()) -> None:
        """Refuse what is no index of a class, and classes that the model has no score for."""
        _, shape = output
        whole = targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer)
        if len(shape) != 1 or not whole:
            raise refuse_targets(self, seen=shape_text(targets), output=output)
        if shape[0] is not None:
            require_labels(targets.astype(np.int64), shape[0], classes)

    def compare(self, dense: Outputs, other: Outputs) -> Scores:
        """Whether both choose the same class, the cosine, and KL(dense || other) in nats."""
        a, b = dense[0].astype(np.float64), other[0].astype(np.float64)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        log_p, log_q = special.log_softmax(a, axis=1), special.log_softmax(b, axis=1)
        return {
            "same": a.argmax(1) == b.argmax(1),
            "cosine": (a * b).sum(1) / np.maximum(norms, np.finfo(np.float64).tiny),
            "kl": np.maximum((np.exp(log_p) * (log_p - log_q)).sum(1), 0.0),  # below it by rounding alone
        }

    def agreement(self, compared: Scores) -> tuple[Agreement, ...]:
        """Share of items of the same class; means of cosine and KL."""
        same = compared["same"]
        return (
            Agreement(
                name="same_class",
                label="same class",
                measured=share(same),
                usual_limit=0.9,
            ),
            cosine_measure(compared["cosine"]),
            Agreement(
                name="kl",
                label="KL",
                unit="nats",
                higher_is_better=False,
                measured=mean(compared["kl"]),
            ),
        )

    def score(self, outputs: Outputs, targets: Array) -> Scores:
        """Whether the class is right, and among the best five."""
        logits = outputs[0].astype(np.float64)
        right = {"top1": logits.argmax(1) == targets}
        if logits.shape[1] > 5:
            best = np.argpartition(-logits, 5, axis=1)[:, :5]
            right["top5"] = (best == targets[:, None]).any(1)
        return right

    def metrics(self, dense: Scores, sparse: Scores, same_precision: Scores | None) -> tuple[Metric, ...]:
        """Top-1, and top-5 with more than five classes."""
        return tuple(
            Metric(
                name=name,
                label=f"top-{name.removeprefix('top')}",
                dense=share(dense[name]),
                sparse=share(sparse[name]),
                same_precision=None if same_precision is None else share(same_precision[name]),
                drop=paired_test(dense[name], sparse[name]),
                usual_drop=USUAL_DROP if name == "top1" else None,
                usual_regression=USUAL_REGRESSION if name == "top1" else None,
            )
            for name in dense
        )


def require_labels(labels: NDArray[np.int64], classes: int, folders: Sequence[str] = ()) -> None:
    """Refuse labels that the model has no score for.

    Args:
        labels: Class of each image.
        classes: How many the model scores.
        folders: Names of the class folders, where the labels count such.

    Raises:
        DataError: A label is not among them, or there are more class folders than classes.
    """
    top = max(int(labels.max()), len(folders) - 1)
    if labels.min() >= 0 and top < classes:
        return
    if classes == 1:
        raise DataError(
            "labels need one score for each class, and the model gives one number an image",
            seen=f"{len(folders)} class folders: {_some(folders)}" if folders else f"labels {labels.min()} to {top}",
            allowed="two outputs or more",
            fix="give the model the two scores (0, logit), which choose the same class, or leave out --eval-data",
        )
    empty = [name for place, name in enumerate(folders) if not (labels == place).any()]
    counted = f"{len(folders)} class folders: {_some(folders)}" if folders else f"labels {labels.min()} to {top}"
    raise DataError(
        "the labels do not fit the model's classes",
        seen=f"{counted}{f'; none of the images is in {_some(empty)}' if empty else ''}",
        allowed=f"{classes} folders" if folders else f"0 to {classes - 1}",
        fix="check --eval-data; in an ImageFolder the label is the sorted index of the class folder",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def remarks_on_folders(folders: Sequence[str], classes: int | None) -> tuple[str, ...]:
    """What may be wrong with labels that count class folders.

    Args:
        folders: Their names, sorted as texts.
        classes: How many the model scores; None where that is not known.
    """
    rows = []
    if list(folders) != sorted(folders, key=_natural):
        first = next(k for k, name in enumerate(sorted(folders, key=_natural)) if folders[k] != name)
        rows.append(
            f"Class folders are taken in the order of texts: class {first} is {folders[first]}. timm sorts numbers by "
            "value: pad them with zeros if the model was trained so."
        )
    if folders and classes is not None and len(folders) < classes:
        rows.append(
            f"There are {len(folders)} class folders and the model scores {classes} classes: the images of "
            f"{folders[-1]} count as class {len(folders) - 1}."
        )
    return tuple(rows)


def _natural(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]
