"""Classification: the first output is a vector of logits; top-1, top-5, and agreement with the dense model."""

from __future__ import annotations

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
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            "the labels do not fit the model's classes",
            seen=f"labels {labels.min()} to {labels.max()}",
            allowed=f"0 to {classes - 1}",
            fix="check --eval-data; in an ImageFolder the label is the sorted index of the class folder",
        )
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
