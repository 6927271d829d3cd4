"""The user's own metric: `--metric module:function`, or a metric of torchmetrics by its name.

A function is called once for each file, `function(predict, data)`. `data` gives batches `(inputs, targets)`; `predict`
takes such inputs and returns the file's outputs by name, as NumPy arrays. It returns one number, or a dict of numbers;
a list or array is a value for each item, whose mean is reported with the paired bootstrap's interval; `Score` says
more.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snowsdeploy.errors import MetricError, UsageError
from snowsdeploy.tasks.base import USUAL_DROP, USUAL_REGRESSION
from snowsdeploy.tasks.statistics import mean, mean_drop
from snowsdeploy.user_code import UserCodeError, call_loaded, load_user_code
from snowsdeploy.values import SHARE, Drop, Estimate, Metric, Quantity

Arrays: TypeAlias = dict[str, NDArray[Any]]
Predict = Callable[[Any], Arrays]
_TORCHMETRICS = re.compile(r"(torchmetrics[\w.]*):([A-Za-z_]\w*)(\(.*\))?", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][\w@.\-]*")


class MetricData(Protocol):
    """Batches of `(inputs, targets)`: an array or a dict of arrays, and an array or a list of what the data gave."""

    def __iter__(self) -> Iterator[tuple[Any, Any]]: ...


@dataclass(frozen=True)
class Score:
    """A number of the user's metric, with what cannot be guessed.

    Attributes:
        value: The number; the mean of `items` where it is None.
        items: A value for each item: then the drop has an interval.
        unit: `share` of a number from 0 to 1, whose drops are percentage points; else a unit, or empty. None guesses:
            a share where all values that are compared lie between 0 and 1.
        higher_is_better: Whether a larger number is the better one.
    """

    value: float | None = None
    items: Sequence[float] | NDArray[Any] | None = None
    unit: str | None = None
    higher_is_better: bool = True

    def __float__(self) -> float:
        return float(np.mean(np.asarray(self.items, dtype=np.float64))) if self.value is None else float(self.value)


@dataclass(frozen=True)
class UserMetric:
    """A metric by the name that the user gave.

    Attributes:
        text: As typed.
        call: Takes a prediction function and the data.
    """

    text: str
    call: Callable[[Predict, MetricData], object]

    def measure(self, predict: Predict, data: MetricData) -> dict[str, Score]:
        """What it says of one file, by name.

        Raises:
            MetricError: It raises, or returns what is no number.
        """
        try:
            found = call_loaded(self.text, self.call, predict, data)
        except UserCodeError as error:
            raise MetricError(
                f"--metric {self.text} failed", seen=error.seen, fix=error.fix, allowed="a function that returns"
            ) from error
        named = found if isinstance(found, Mapping) else {self.text.rpartition(":")[2].partition("(")[0]: found}
        if not named:
            raise MetricError(
                f"--metric {self.text} returned nothing", seen="{}", allowed=_ALLOWED, fix="return at least one number"
            )
        return {self._checked_name(name): self._score(name, value) for name, value in named.items()}

    def _checked_name(self, name: object) -> str:
        if isinstance(name, str) and _NAME.fullmatch(name):
            return name
        raise MetricError(
            f"--metric {self.text} names a number in a way that no goal could write",
            seen=repr(name),
            allowed="letters, digits, _, -, . and @, such as map50 or recall@5",
            fix="return it under another name",
        )

    def _score(self, name: object, value: object) -> Score:
        score = value if isinstance(value, Score) else _as_score(value)
        numbers = [] if score is None else [score.value if score.items is None else score.items]
        try:
            finite = bool(numbers) and bool((np.abs(np.asarray(numbers[0], dtype=np.float64)) < _LARGEST).all())
        except (TypeError, ValueError):
            finite = False
        if score is None or not finite or (score.items is not None and not len(score.items)):
            raise MetricError(
                f"--metric {self.text} gave no finite number for {name}",
                seen=repr(value)[:200],
                allowed=_ALLOWED,
                fix="run the function alone on a few items and look at what it returns",
            )
        return score


_LARGEST = 1e100
_ALLOWED = "a number, a value for each item, snowsdeploy.Score, or a dict of those by name"


def _as_score(value: object) -> Score | None:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, bool | int | float | np.number):
        return Score(float(value))
    if isinstance(value, np.ndarray | Sequence) and not isinstance(value, str | bytes):
        array = np.asarray(value)
        return Score(float(array)) if array.ndim == 0 else Score(items=array) if array.ndim == 1 else None
    return None


def compare_scores(
    dense: Mapping[str, Score], sparse: Mapping[str, Score], same_precision: Mapping[str, Score] | None, items: int
) -> tuple[Metric, ...]:
    """What the user's metrics say of both models, in the order of the dense model's.

    Args:
        dense: By name, of the dense file.
        sparse: The same of the sparse file.
        same_precision: The same of the dense file in that precision, where there is one.
        items: How many items were predicted.

    Raises:
        MetricError: The names differ from file to file.
    """
    found = []
    for name, a in dense.items():
        same = None if same_precision is None else same_precision.get(name)
        if name not in sparse or (same_precision is not None and same is None):
            raise MetricError(
                "a metric is not given for every file",
                seen=name,
                fix="return the same names whatever is predicted",
                allowed="the same names for the dense and every sparse file",
            )
        found.append(_compared(name, a, sparse[name], same, items))
    return tuple(found)


def _compared(name: str, a: Score, b: Score, same: Score | None, items: int) -> Metric:
    compared = [float(score) for score in (a, b, same) if score is not None]
    guess = all(0 <= value <= 1 for value in compared)
    unit = (SHARE if guess else "") if a.unit is None else a.unit
    if unit == SHARE and not guess:
        raise MetricError(
            f"--metric gives {name} as a share, which is a number from 0 to 1",
            seen=", ".join(f"{value:g}" for value in compared),
            fix="name another unit: snowsdeploy.Score(value, unit='')",
            allowed="numbers from 0 to 1",
        )
    usual = unit == SHARE  # a metric in another unit needs a goal
    quantity = Quantity(name=name, label=name, unit=unit, higher_is_better=bool(a.higher_is_better))
    return Metric(
        **quantity.model_dump(),
        dense=_estimate(a, items),
        sparse=_estimate(b, items),
        same_precision=None if same is None else _estimate(same, items),
        drop=_drop(quantity, a, b),
        usual_drop=USUAL_DROP if usual else None,
        usual_regression=USUAL_REGRESSION if usual else None,
    )


def _drop(quantity: Quantity, a: Score, b: Score) -> Drop:
    sign = quantity.factor if quantity.higher_is_better else -quantity.factor
    whole = a.value is None and b.value is None  # a value that is not the items' mean has not its interval either
    if whole and a.items is not None and b.items is not None and len(a.items) == len(b.items):
        return mean_drop(np.asarray(a.items, np.float64), np.asarray(b.items, np.float64), sign)
    return Drop(value=sign * (float(a) - float(b)))


def _estimate(score: Score, items: int) -> Estimate:
    if score.items is None or score.value is not None:
        return Estimate(value=float(score), items=items)
    return mean(np.asarray(score.items, dtype=np.float64))


def find_metric(text: str) -> UserMetric:
    """`module:function`, or `torchmetrics.module:Class(name=value)`.

    Raises:
        UsageError: It cannot be imported, is no function, or the arguments are no plain values.
    """
    matched = _TORCHMETRICS.fullmatch(text)
    if ":" not in text:
        raise UsageError(
            "--metric names no function",
            seen=text,
            allowed="module:function of yours, or a metric such as torchmetrics.classification:MulticlassF1Score",
            fix="write module:function, importable from the current directory",
        )
    try:
        if matched:
            return _torchmetric(text, matched[1], matched[2], matched[3] or "()")
        return UserMetric(text, load_user_code(text))
    except UserCodeError as error:
        raise UsageError(f"--metric: {error.what}", seen=error.seen, allowed=error.allowed, fix=error.fix) from error


def _torchmetric(text: str, module: str, name: str, arguments: str) -> UserMetric:
    keywords = _keywords(text, arguments)
    kind = load_user_code(f"{module}:{name}")
    call_loaded(text, kind, **keywords)  # arguments that it refuses are told before anything is solved

    def measure(predict: Predict, data: MetricData) -> object:
        metric: Any = kind(**keywords)
        for inputs, targets in data:
            metric.update(_predictions(predict(inputs)), _target(targets))
        return _scores(metric, re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower())

    return UserMetric(text, measure)


def _keywords(text: str, arguments: str) -> dict[str, Any]:
    refusal = UsageError(
        "--metric has arguments that are no plain values",
        seen=text,
        allowed="NAME(key=value, ...), such as MulticlassF1Score(num_classes=10)",
        fix="give numbers, texts and lists, or write --metric module:function",
    )
    try:
        call = ast.parse(f"f{arguments}", mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise refusal from error
    if not isinstance(call, ast.Call) or call.args or not all(word.arg for word in call.keywords):
        raise refusal
    try:
        return {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except ValueError as error:
        raise refusal from error


def _predictions(outputs: Arrays) -> object:
    """The only output; or a dict an item, where the outputs are called so (boxes, scores, labels)."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in outputs.items()}
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    if {"boxes", "scores", "labels"} <= tensors.keys():
        count = len(next(iter(tensors.values())))
        return [{name: value[item] for name, value in tensors.items()} for item in range(count)]
    raise MetricError(
        "a metric of torchmetrics reads one output, or those called boxes, scores and labels",
        seen=", ".join(tensors),
        fix="choose one with --outputs, or write --metric module:function",
        allowed="a model with one output, or with outputs of those names",
    )


def _target(targets: object) -> object:
    if isinstance(targets, np.ndarray) and targets.dtype != np.object_:
        return torch.from_numpy(targets)
    if isinstance(targets, Mapping):
        return {key: _target(value) for key, value in targets.items()}
    if isinstance(targets, list | tuple | np.ndarray):
        return [_target(value) for value in targets]
    return targets


def _scores(metric: Any, name: str) -> dict[str, Score]:  # noqa: ANN401 - torchmetrics' classes have no common type here
    computed = metric.compute()
    found = computed if isinstance(computed, Mapping) else {name: computed}
    bounds = (getattr(metric, "plot_lower_bound", None), getattr(metric, "plot_upper_bound", None))
    share, better = bounds == (0.0, 1.0), getattr(metric, "higher_is_better", True) is not False
    scores = {
        key: Score(
            _within_share(float(value)) if share else float(value),
            unit=SHARE if share else None,
            higher_is_better=better,
        )
        for key, value in found.items()
        if isinstance(value, Tensor) and value.numel() == 1
    }
    # Detection's metrics say -1 of what does not occur, and list the classes beside the numbers.
    return {k: s for k, s in scores.items() if k != "classes" and not (share and float(s) == -1)}


def _within_share(value: float) -> float:
    """Sums in single precision end a little outside of 0 to 1."""
    return min(max(value, 0.0), 1.0) if -1e-4 < value < 1 + 1e-4 else value
