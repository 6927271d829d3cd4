"""The outputs of several ONNX files on the same images, in one pass: each image is decoded once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import DataError, NumericsError
from snowsdeploy.runtime.session import Feed, OrtSession
from snowsdeploy.tasks.classify import Logits

Key = TypeVar("Key", bound=Hashable)


def collect_logits(
    sessions: Mapping[Key, OrtSession],
    samples: Samples,
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Key, Logits]:
    """Run every file over all images; the first output is taken as logits.

    Args:
        sessions: The files, each under a name.
        samples: Images; read once, a batch at a time.
        batch_size: Images a call.
        progress: Told `(done, total)` images.

    Returns:
        Logits `[images, classes]` of each file.

    Raises:
        DataError: The output is not one vector an image.
        NumericsError: An output is NaN or Inf.
    """
    parts: dict[Key, list[Logits]] = {key: [] for key in sessions}
    done = 0
    for batch in samples.batches(batch_size):
        feed = batch.numpy()
        for key, session in sessions.items():
            parts[key].append(_logits(session, feed))
        done += len(batch)
        progress(done, len(samples))
    return {key: np.concatenate(rows) for key, rows in parts.items()}


def _logits(session: OrtSession, feed: Feed) -> Logits:
    first = session.run(feed)[0]
    if first.ndim != 2:
        raise DataError(
            "accuracy needs one vector of logits an image", seen=first.shape, fix="leave out --eval-data for this model"
        )
    if not np.isfinite(first).all():
        raise NumericsError("an ONNX output is NaN or Inf on the evaluation images", seen=session.provider.name)
    return first.astype(np.float64)
