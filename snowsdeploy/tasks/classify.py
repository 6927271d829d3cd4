"""Classification: the first output is a vector of logits; top-1, top-5, and agreement with the dense model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from snowsdeploy.errors import DataError
from snowsdeploy.tasks.statistics import paired_test, proportion
from snowsdeploy.values import Accuracy, Agreement, DataInfo

Logits = NDArray[np.float64]


def compare_logits(
    a: Logits, b: Logits, labels: NDArray[np.int64] | None, *other: Logits, data: DataInfo, provider: str
) -> Accuracy:
    """Accuracy and agreement of logits `[images, classes]`.

    Args:
        a: Of the dense model.
        b: Of the sparse model.
        labels: Class of each image, `[images]`; None without labels.
        *other: Of the dense model in the sparse one's precision, when that is not FP32.
        data: Which images they are of.
        provider: What computed them.

    Raises:
        DataError: The labels do not fit the number of classes.
    """
    result = Accuracy(data=data, provider=provider, agreement=agreement(a, b))
    if labels is None:
        return result
    classes = a.shape[1]
    require_labels(labels, classes)
    right_a, right_b = (logits.argmax(1) == labels for logits in (a, b))
    update: dict[str, object] = {
        "dense_top1": proportion(int(right_a.sum()), len(labels)),
        "sparse_top1": proportion(int(right_b.sum()), len(labels)),
        "paired": paired_test(right_a, right_b),
    }
    if other:
        update["same_precision_top1"] = proportion(int((other[0].argmax(1) == labels).sum()), len(labels))
    if classes > 5:
        update["dense_top5"] = proportion(_top5(a, labels), len(labels))
        update["sparse_top5"] = proportion(_top5(b, labels), len(labels))
    return result.model_copy(update=update)


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


def _top5(logits: Logits, labels: NDArray[np.int64]) -> int:
    best = np.argpartition(-logits, 5, axis=1)[:, :5]
    return int((best == labels[:, None]).any(1).sum())


def agreement(dense: Logits, sparse: Logits) -> Agreement:
    """How alike outputs `[n, classes]` are: top-1 agreement, mean cosine, mean KL(dense || sparse) in nats."""
    same = int((dense.argmax(1) == sparse.argmax(1)).sum())
    norms = np.linalg.norm(dense, axis=1) * np.linalg.norm(sparse, axis=1)
    cosine = (dense * sparse).sum(1) / np.maximum(norms, np.finfo(np.float64).tiny)
    log_p, log_q = special.log_softmax(dense, axis=1), special.log_softmax(sparse, axis=1)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(1)
    return Agreement(top1=proportion(same, len(dense)), cosine=float(cosine.mean()), kl=max(float(kl.mean()), 0.0))
