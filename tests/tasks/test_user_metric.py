"""The user's own metrics: what they are called with, what they may return, and how drops are counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import snowsdeploy
from snowsdeploy.data.memory import hold
from snowsdeploy.errors import MetricError, UsageError
from snowsdeploy.tasks.any_output import AnyOutput
from snowsdeploy.tasks.evaluate import Judge, evaluate
from snowsdeploy.tasks.user_metric import Score, UserMetric, find_metric
from snowsdeploy.values import Accuracy, Metric

X, Y = torch.arange(12.0).reshape(6, 2), np.array([0, 1, 1, 0, 1, 0])


def judged(call: Callable[..., object], targets: object = Y) -> Accuracy:
    data = hold((X, targets), option="data")
    judge = Judge(AnyOutput(("y",)), ("y",), (UserMetric("mine:metric", call),))
    runs = {"dense": lambda x: [x.numpy()], "sparse": lambda x: [x.numpy() * np.array([1.0, 0.5], np.float32)]}
    return evaluate(runs, "dense", data, judge, batch_size=4).accuracy("sparse", provider="cpu")  # type: ignore[arg-type]


def metric_of(value: Callable[[str], object]) -> Metric:
    """Of a function that says one thing of the dense model and another of the sparse."""

    def call(predict: Any, data: Any) -> object:
        first = next(iter(data))[0]
        return value("dense" if (predict(first)["y"] == first).all() else "sparse")

    found = judged(call).metric
    assert found is not None
    return found


def test_a_function_sees_inputs_targets_and_outputs_by_name() -> None:
    seen: list[tuple[tuple[int, ...], list[int]]] = []

    def metric(predict: Any, data: Any) -> float:
        for inputs, targets in data:
            assert set(predict(inputs)) == {"y"}
            seen.append((predict(inputs)["y"].shape, targets.tolist()))
        return 0.5

    found = judged(metric)
    assert seen[:2] == [((4, 2), [0, 1, 1, 0]), ((2, 2), [1, 0])]
    assert [m.name for m in found.metrics] == ["metric"]


def test_a_share_drops_by_points_and_other_numbers_in_their_unit() -> None:
    share = metric_of({"dense": 0.8, "sparse": 0.75}.__getitem__)
    assert (share.unit, share.drop.value) == ("share", pytest.approx(5.0))
    percent = metric_of({"dense": 80.0, "sparse": 75.0}.__getitem__)
    assert (percent.unit, percent.drop.value, percent.usual_drop) == ("", pytest.approx(5.0), None)
    loss = metric_of(lambda side: Score({"dense": 2.0, "sparse": 2.5}[side], unit="nats", higher_is_better=False))
    assert (loss.unit, loss.drop.value) == ("nats", pytest.approx(0.5))


def test_a_value_an_item_gives_the_paired_bootstraps_interval() -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(10, 3, 400)
    sparse = dense - rng.normal(1, 0.5, 400)
    found = metric_of(lambda side: dense if side == "dense" else sparse)
    assert found.drop.low is not None
    assert found.drop.high is not None
    assert found.drop.low < 1 < found.drop.high
    error = 1.96 * (dense - sparse).std() / 20
    assert found.drop.high - found.drop.low == pytest.approx(2 * error, rel=0.1)


def test_targets_of_any_kind_reach_the_function_as_they_are() -> None:
    boxes = [{"boxes": torch.zeros(n, 4), "labels": torch.zeros(n)} for n in range(6)]

    def metric(predict: Any, data: Any) -> float:
        sizes = [len(target["boxes"]) for _, targets in data for target in targets]
        assert sizes == list(range(6))
        return 1.0

    assert judged(metric, boxes).metric is not None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "no finite number"),
        (float("nan"), "no finite number"),
        ("0.5", "no finite number"),
        ({"a b": 1.0}, "no goal could write"),
        ({}, "returned nothing"),
        ([], "no finite number"),
    ],
)
def test_what_is_no_number_is_refused(value: object, said: str) -> None:
    with pytest.raises(MetricError, match=said):
        judged(lambda predict, data: value)


def test_the_score_that_messages_name_is_there() -> None:
    assert snowsdeploy.Score is Score


def test_a_function_that_raises_or_ends_the_program_is_named() -> None:
    def metric(predict: Any, data: Any) -> float:
        raise SystemExit(0)

    with pytest.raises(MetricError, match="mine:metric failed"):
        judged(metric)


def test_torchmetrics_by_name() -> None:
    found = find_metric("torchmetrics.classification:MulticlassAccuracy(num_classes=2, average='micro')")
    scores = found.measure(lambda x: {"y": x}, [(np.eye(2, dtype=np.float32)[[0, 1, 1, 0]], np.array([0, 1, 0, 0]))])  # type: ignore[arg-type]
    assert {name: float(score) for name, score in scores.items()} == {"multiclass_accuracy": 0.75}
    assert scores["multiclass_accuracy"].unit == "share"
    error = find_metric("torchmetrics:MeanSquaredError")
    (score,) = error.measure(lambda x: {"y": x}, [(np.ones(4, np.float32), np.zeros(4, np.float32))]).values()  # type: ignore[arg-type]
    assert (float(score), score.higher_is_better) == (1.0, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("accuracy", "names no function"),
        ("no_such_module_here:f", "cannot be imported"),
        ("torchmetrics.classification:MulticlassAccuracy(3)", "no plain values"),
        ("torchmetrics.classification:MulticlassAccuracy(num_classes=__import__('os'))", "no plain values"),
        ("torchmetrics.classification:NoSuchMetric", "no such"),
        ("torchmetrics.classification:MulticlassAccuracy(wrong=1)", "raised"),
    ],
)
def test_metrics_that_are_not_there_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_metric(text)


def test_a_metric_is_found_beside_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_metric_of_a_test.py").write_text("def f1(predict, data):\n    return 0.5\n")
    monkeypatch.chdir(tmp_path)
    found = find_metric("own_metric_of_a_test:f1").measure(lambda x: {}, [])  # type: ignore[arg-type]
    assert float(found["f1"]) == 0.5


def test_several_inputs_come_by_name() -> None:
    data = hold({"a": X, "b": X}, option="data")
    shapes: list[set[str]] = []

    def metric(predict: Any, batches: Any) -> float:
        for inputs, targets in batches:
            assert targets is None
            shapes.append(set(inputs))
            assert isinstance(predict(inputs)["y"], np.ndarray)
        return 1.0

    def run(batch: Any) -> list[np.ndarray]:
        tensors: dict[str, Tensor] = batch.tensors
        return [tensors["a"].numpy()]

    judge = Judge(AnyOutput(("y",)), ("y",), (UserMetric("m:f", metric),))
    evaluate({"dense": run}, "dense", data, judge, batch_size=4)
    assert shapes == [{"a", "b"}, {"a", "b"}]


def test_a_share_beyond_1_is_refused_with_what_to_write() -> None:
    with pytest.raises(MetricError, match="as a share") as caught:
        metric_of(lambda side: Score({"dense": 1.2, "sparse": 0.5}[side], unit="share"))
    assert "unit=''" in str(caught.value.fix)
    with pytest.raises(MetricError, match="no finite number"):
        metric_of(lambda side: 1e200 if side == "dense" else 1.0)


def test_a_value_beside_its_items_has_not_the_interval_of_their_mean() -> None:
    items = np.linspace(0, 1, 50)
    found = metric_of(lambda side: Score(0.9 if side == "dense" else 0.8, items=items))
    assert (found.drop.value, found.drop.low) == (pytest.approx(10.0), None)
