"""What every task gives: agreement with the dense model without labels, metrics with them, and a distance.

Outputs are looked at a batch at a time and reduced to a few numbers an item, so that masks and images of a whole data
set are never in memory. What is reported, with its interval, is made of those numbers at the end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from snowsdeploy.errors import DataError
from snowsdeploy.values import Agreement, Metric

Array: TypeAlias = NDArray[Any]
Outputs: TypeAlias = Sequence[Array]  # of one batch, in the model's order; the first is judged
Scores: TypeAlias = Mapping[str, Array]  # a few numbers an item, `[items, ...]` each
Output: TypeAlias = tuple[str, tuple[int | None, ...]]  # name, and its shape without the batch; None for a free axis

USUAL_DROP, USUAL_REGRESSION = 2.0, 0.5  # percentage points of a share


@dataclass(frozen=True)
class AbstractTask(ABC):
    """One meaning of a model's outputs; every number of a report about it is made here.

    Attributes:
        name: As `--task` takes it.
        targets: What it is judged against, in words.
        metrics_named: The names of its metrics, as goals have them.
        divergence: Score of `compare` that says best how far outputs are from the dense ones, and its label; empty
            where that is the relative error of all values.
        same: Score of `compare` that is a share of what is equal, and its label; empty without.
    """

    name: ClassVar[str]
    targets: ClassVar[str]
    metrics_named: ClassVar[tuple[str, ...]] = ()
    divergence: ClassVar[tuple[str, str] | tuple[()]] = ()
    same: ClassVar[tuple[str, str] | tuple[()]] = ()

    @abstractmethod
    def require_targets(self, targets: Array, output: Output, classes: Sequence[str] = ()) -> None:
        """Refuse targets that the first output cannot be judged against, before anything is solved.

        Args:
            targets: Of all items, `[items, ...]`.
            output: The first output.
            classes: Names of the class folders, where the targets count such.

        Raises:
            DataError: They do not fit.
        """

    @abstractmethod
    def compare(self, dense: Outputs, other: Outputs) -> Scores:
        """How alike the outputs of one batch are, item by item."""

    @abstractmethod
    def agreement(self, compared: Scores) -> tuple[Agreement, ...]:
        """The measures of all items, what is judged first."""

    def score(self, outputs: Outputs, targets: Array) -> Scores:
        """What the metrics need of one batch, item by item; nothing for a task without metrics."""
        del outputs, targets
        return {}

    def metrics(self, dense: Scores, sparse: Scores, same_precision: Scores | None) -> tuple[Metric, ...]:
        """The metrics of all items, the one that counts most first."""
        del dense, sparse, same_precision
        return ()


def joined(parts: Sequence[Scores]) -> dict[str, Array]:
    """The scores of several batches as one; nothing of none."""
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def refuse_targets(task: AbstractTask, *, seen: object, output: Output, fix: str | None = None) -> DataError:
    """The error for targets of another kind than a task is judged against."""
    name, shape = output
    sizes = "x".join("?" if size is None else str(size) for size in shape) or "one number"
    return DataError(
        f"--task {task.name} cannot judge output {name} ({sizes} an item) against the targets of --eval-data",
        seen=seen,
        allowed=task.targets,
        fix=fix or "name another --task, judge by your own --metric module:function, or leave the targets out",
    )


def shape_text(array: Array) -> str:
    """`int64 [100, 32, 32]`, for messages."""
    return f"{array.dtype} {list(array.shape)}"
