"""Outputs of several models on the same items, in one pass -> how right and how alike they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from snowsdeploy.batch import Batch, Inputs
from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import NumericsError
from snowsdeploy.tasks.base import AbstractTask, Array, Outputs, Scores, joined
from snowsdeploy.tasks.user_metric import Arrays, Score, UserMetric, compare_scores
from snowsdeploy.values import Accuracy

Key = TypeVar("Key", bound=Hashable)
Run = Callable[[Batch], Outputs]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Judge:
    """What outputs mean, and what else the user measures.

    Attributes:
        task: Of the model.
        names: Of its outputs, in order.
        metrics: The user's own.
        targets: Whether the task's own metrics read the targets.
    """

    task: AbstractTask
    names: tuple[str, ...] = ("output",)
    metrics: tuple[UserMetric, ...] = ()
    targets: bool = True

    def without_targets(self) -> Judge:
        """Agreement alone: the items are not those that metrics are for."""
        return replace(self, metrics=(), targets=False)


@dataclass(frozen=True)
class Scored:
    """What is known of one model's outputs on all items.

    Attributes:
        compared: Against the reference's; empty for that itself.
        scores: Against the targets; empty without.
        own: By the user's metrics.
    """

    compared: Scores
    scores: Scores
    own: Mapping[str, Score] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated(Generic[Key]):
    """What several models are on the same items.

    Attributes:
        judge: By which they were judged.
        samples: The items.
        scored: Each model, under its name.
        reference: Which of them the others are compared with.
    """

    judge: Judge
    samples: Samples
    scored: Mapping[Key, Scored]
    reference: Key

    def accuracy(
        self, sparse: Key, same_precision: Key | None = None, *, provider: str, calibration: bool = False
    ) -> Accuracy:
        """Of one model against the reference.

        Args:
            sparse: The model.
            same_precision: The reference in that model's precision, where it is another one.
            provider: What ran them.
            calibration: Whether the items are those that were calibrated on.
        """
        task, a, b = self.judge.task, self.scored[self.reference], self.scored[sparse]
        same = None if same_precision is None else self.scored[same_precision]
        metrics = task.metrics(a.scores, b.scores, None if same is None else same.scores) if a.scores else ()
        own = compare_scores(a.own, b.own, None if same is None else same.own, len(self.samples))
        return Accuracy(
            task=task.name,
            data=self.samples.info,
            calibration=calibration,
            provider=provider,
            agreement=task.agreement(b.compared),
            metrics=(*own, *metrics),  # who writes a metric of her own is judged by it first
        )


def evaluate(
    models: Mapping[Key, Run],
    reference: Key,
    samples: Samples,
    judge: Judge,
    *,
    batch_size: int,
    names: Mapping[Key, str] | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluated[Key]:
    """Run every model over all items; each item is decoded once.

    Args:
        models: Each under a name, `Batch -> outputs`.
        reference: The dense one, which the others are compared with.
        samples: The items.
        judge: What the outputs mean.
        batch_size: Items a call.
        names: How messages call the models; by their keys without it.
        progress: Told `(done, total)` items.

    Raises:
        NumericsError: An output is NaN or Inf.
        MetricError: The user's metric fails.
        DataError: The items cannot be read.
    """
    task, done, called = judge.task, 0, names or {key: str(key) for key in models}
    targets = samples.targets if judge.targets else None
    compared: dict[Key, list[Scores]] = {key: [] for key in models}
    scores: dict[Key, list[Scores]] = {key: [] for key in models}
    for batch in samples.batches(batch_size):
        dense = _finite(models[reference](batch), called[reference])
        part = None if targets is None else targets[done : done + len(batch)]
        for key, run in models.items():
            outputs = dense if key == reference else _finite(run(batch), called[key])
            if key != reference:
                compared[key].append(task.compare(dense, outputs))
            if part is not None:
                scores[key].append(task.score(outputs, part))
        done += len(batch)
        progress(done, len(samples))
    data = _Data(samples, batch_size)
    own = {key: _own(run, judge, data) for key, run in models.items()}
    return Evaluated(
        judge,
        samples,
        {key: Scored(joined(compared[key]), joined(scores[key]), own[key]) for key in models},
        reference,
    )


def compare_outputs(task: AbstractTask, dense: Outputs, sparse: Outputs, samples: Samples) -> Accuracy:
    """Of outputs that are all there, in double precision or single.

    Args:
        task: What they mean.
        dense: Of the dense model, `[items, ...]` each.
        sparse: Of the sparse model.
        samples: The items, with their targets if there are any.
    """
    targets = samples.targets
    a, b = ({} if targets is None else task.score(outputs, targets) for outputs in (dense, sparse))
    scored = {"dense": Scored({}, a), "sparse": Scored(task.compare(dense, sparse), b)}
    return Evaluated(Judge(task), samples, scored, "dense").accuracy("sparse", provider="cpu")


def _finite(outputs: Outputs, model: str) -> Outputs:
    for output in outputs:
        if np.issubdtype(output.dtype, np.floating) and not np.isfinite(output).all():
            raise NumericsError(
                "an output is NaN or Inf on the items that are judged",
                seen=f"{model}: {int((~np.isfinite(output)).sum())} of {output.size} values",
                allowed="finite numbers",
                fix="check the items of --eval-data; where it is only in one precision, leave that out of --precision",
            )
    return outputs


def _own(run: Run, judge: Judge, data: _Data) -> dict[str, Score]:
    def predict(inputs: Any) -> Arrays:  # noqa: ANN401 - what `data` gave: an array, or arrays by name
        return dict(zip(judge.names, run(data.batch(inputs)), strict=True))

    found: dict[str, Score] = {}
    for metric in judge.metrics:
        found |= metric.measure(predict, data)
    return found


@dataclass(frozen=True)
class _Data:
    """The items as the user's metric sees them: NumPy arrays, by name where the model has several inputs."""

    samples: Samples
    batch_size: int

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        done = 0
        for batch in self.samples.batches(self.batch_size):
            arrays = batch.numpy()
            part = None if self.samples.targets is None else self.samples.targets[done : done + len(batch)]
            done += len(batch)
            plain = list(part) if isinstance(part, np.ndarray) and part.dtype == np.object_ else part
            yield arrays if isinstance(batch, Inputs) else _only(arrays), plain

    def batch(self, inputs: Any) -> Batch:  # noqa: ANN401 - as in `predict`
        """What a model takes, of arrays."""
        if isinstance(inputs, Mapping):
            return Inputs({name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()})
        return torch.from_numpy(np.ascontiguousarray(inputs))


def _only(arrays: Any) -> Array:  # noqa: ANN401 - a feed: one array, or arrays by name
    found: Array = arrays if isinstance(arrays, np.ndarray) else next(iter(arrays.values()))
    return found
