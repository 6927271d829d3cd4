"""Accuracy of the dense and the sparse ONNX file on the same images."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from snowsdeploy.artifacts import Accuracy, Agreement, PairedTest, Proportion
from snowsdeploy.data.images import ImageSet
from snowsdeploy.errors import DataError, NumericsError
from snowsdeploy.validation.ort import OrtSession

Logits = NDArray[np.float64]


def measure_accuracy(
    dense: OrtSession,
    sparse: OrtSession,
    images: ImageSet,
    batch_size: int,
    *,
    same_precision: OrtSession | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Accuracy:
    """Run the files over all images; the first output is taken as logits `[batch, classes]`.

    Args:
        dense: The dense file in FP32.
        sparse: The sparse file.
        images: With labels or without.
        batch_size: Images a call.
        same_precision: The dense file in the sparse file's precision, when that is not FP32.
        progress: Told `(done, total)` images.

    Raises:
        DataError: The labels do not fit the number of classes, or the output is not one vector an image.
        NumericsError: An output is NaN or Inf.
    """
    sessions = [session for session in (dense, sparse, same_precision) if session is not None]
    parts = []
    for batch in images.batches(batch_size):
        parts.append([_logits(session, batch.numpy()) for session in sessions])
        progress(min(len(parts) * batch_size, len(images)), len(images))
    a, b, *other = (np.concatenate(side) for side in zip(*parts, strict=True))
    return compare_logits(a, b, images, sparse.provider.name, *other)


def compare_logits(a: Logits, b: Logits, images: ImageSet, provider: str, *other: Logits) -> Accuracy:
    """Accuracy and agreement of logits `[images, classes]`.

    Args:
        a: Of the dense model.
        b: Of the sparse model.
        images: Which images they are of, with labels or without.
        provider: What computed them.
        *other: Of the dense model in the sparse one's precision, when that is not FP32.

    Raises:
        DataError: The labels do not fit the number of classes.
    """
    result = Accuracy(data=images.info, provider=provider, agreement=agreement(a, b))
    if images.labels is None:
        return result
    labels, classes = images.labels, a.shape[1]
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


def _logits(session: OrtSession, images: NDArray[np.float32]) -> Logits:
    first = session.run(images)[0]
    if first.ndim != 2:
        raise DataError(
            "accuracy needs one vector of logits an image", seen=first.shape, fix="leave out --eval-data for this model"
        )
    if not np.isfinite(first).all():
        raise NumericsError("an ONNX output is NaN or Inf on the evaluation images", seen=session.provider.name)
    return first.astype(np.float64)


def _top5(logits: Logits, labels: NDArray[np.int64]) -> int:
    best = np.argpartition(-logits, 5, axis=1)[:, :5]
    return int((best == labels[:, None]).any(1).sum())


def proportion(successes: int, total: int, confidence: float = 0.95) -> Proportion:
    """A proportion with Wilson's score interval (Wilson 1927)."""
    interval = stats.binomtest(successes, total).proportion_ci(confidence, method="wilson")
    return Proportion(
        successes=successes, total=total, low=float(interval.low), high=float(interval.high), confidence=confidence
    )


def paired_test(dense: NDArray[np.bool_], sparse: NDArray[np.bool_], confidence: float = 0.95) -> PairedTest:
    """McNemar's exact test (McNemar 1947), and the drop's interval by Bonett & Price (2012).

    Args:
        dense: Which images the dense model gets right, `[n]`.
        sparse: The same for the sparse model.
        confidence: Level of the interval.
    """
    n = len(dense)
    only_dense, only_sparse = int((dense & ~sparse).sum()), int((~dense & sparse).sum())
    discordant = only_dense + only_sparse
    p_value = float(stats.binomtest(only_dense, discordant).pvalue) if discordant else 1.0
    # Bonett & Price: one discordant pair of each kind is added, which keeps the interval honest for small counts.
    p, q = (only_dense + 1) / (n + 2), (only_sparse + 1) / (n + 2)
    half = float(stats.norm.ppf(0.5 + confidence / 2)) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return PairedTest(
        only_dense=only_dense,
        only_sparse=only_sparse,
        p_value=p_value,
        drop=100 * (only_dense - only_sparse) / n,
        drop_low=100 * max(p - q - half, -1.0),
        drop_high=100 * min(p - q + half, 1.0),
        confidence=confidence,
    )


def agreement(dense: Logits, sparse: Logits) -> Agreement:
    """How alike outputs `[n, classes]` are: top-1 agreement, mean cosine, mean KL(dense || sparse) in nats."""
    same = int((dense.argmax(1) == sparse.argmax(1)).sum())
    norms = np.linalg.norm(dense, axis=1) * np.linalg.norm(sparse, axis=1)
    cosine = (dense * sparse).sum(1) / np.maximum(norms, np.finfo(np.float64).tiny)
    log_p, log_q = special.log_softmax(dense, axis=1), special.log_softmax(sparse, axis=1)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(1)
    return Agreement(top1=proportion(same, len(dense)), cosine=float(cosine.mean()), kl=max(float(kl.mean()), 0.0))
