"""Accuracy and agreement of two models' logits against counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import DataError
from snowsdeploy.tasks.classify import Classify, remarks_on_folders, require_labels
from snowsdeploy.tasks.evaluate import compare_outputs
from snowsdeploy.values import Accuracy, DataInfo

DATA = DataInfo(source="made", items=10, labelled=True, origin="o", fingerprint="f")


def compared(dense: np.ndarray, sparse: np.ndarray, labels: np.ndarray) -> Accuracy:
    samples = Samples(lambda items: torch.zeros(len(items)), tuple(range(len(labels))), labels, DATA)
    return compare_outputs(Classify(), [dense], [sparse], samples)


def one_hot(classes: list[int], count: int) -> np.ndarray:
    return np.eye(count)[classes]


def test_the_drop_is_positive_where_the_sparse_model_is_worse() -> None:
    labels = np.arange(10) % 3
    wrong = np.where(np.arange(10) < 3, (labels + 1) % 3, labels)
    dense, sparse = one_hot(labels.tolist(), 3), one_hot(wrong.tolist(), 3)
    found = compared(dense, sparse, labels)
    top1 = found.metrics[0]
    assert (top1.name, top1.dense.value, top1.sparse.value, top1.drop.value) == ("top1", 1.0, 0.7, 30.0)
    assert top1.drop.note == "3 items only the dense model gets right, 0 only the sparse"


def test_top5_counts_the_five_highest_of_more_classes() -> None:
    """The label of image k has rank k + 1 in the dense model, one lower in the sparse."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 9, 9)
    dense, sparse = np.empty((9, 9)), np.empty((9, 9))
    for logits, lower in ((dense, 0), (sparse, 1)):
        for k, label in enumerate(labels):
            order = generator.permutation(np.delete(np.arange(9), label))
            ranked = np.insert(order, min(k + lower, 8), label)  # classes from the highest logit to the lowest
            logits[k, ranked] = -np.arange(9.0)
    found = compared(dense, sparse, labels)
    top5 = found.metrics[1]
    assert (top5.name, top5.dense.value, top5.sparse.value) == ("top5", 5 / 9, 4 / 9)


def test_cosine_is_that_of_outputs_of_unequal_length() -> None:
    dense, sparse = np.random.default_rng(1).normal(size=(2, 6, 4)) * np.array([1.0, 5.0])[:, None, None]
    expected = [
        math.fsum(a * b) / math.sqrt(math.fsum(a * a) * math.fsum(b * b)) for a, b in zip(dense, sparse, strict=True)
    ]
    assert Classify().compare([dense], [sparse])["cosine"].mean() == pytest.approx(sum(expected) / 6, rel=1e-12)
    assert Classify().compare([dense], [3 * dense])["cosine"].mean() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(
    ("labels", "classes", "folders", "message"),
    [
        ([0, 4], 4, (), "labels 0 to 4"),
        ([-1, 1], 4, (), "labels -1 to 1"),
        ([0, 1], 2, ("annotations", "cat", "dog"), "none of the images is in dog"),
        ([1, 2], 2, ("annotations", "cat", "dog"), "none of the images is in annotations"),
        ([5], 2, tuple("abcdef"), "6 class folders: a, b, c, d and 2 more"),
    ],
)
def test_labels_without_a_score_are_refused(
    labels: list[int], classes: int, folders: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        require_labels(np.array(labels), classes, folders)
    assert message in str(caught.value.seen)


def test_labels_that_fit_are_not_refused() -> None:
    require_labels(np.array([0, 3]), 4)
    require_labels(np.array([0, 0]), 3, ("cat", "dog", "empty"))


@pytest.mark.parametrize(
    ("folders", "classes", "said"),
    [
        (("1", "10", "2"), 3, "class 1 is 10"),
        (("n01", "n02"), 2, None),
        (("cat", "dog"), 2, None),
        ((), 10, None),
        (("class1", "class12", "class3"), 3, "class 1 is class12"),
        (("cat", "dog"), 1000, "There are 2 class folders and the model scores 1000 classes"),
        (("cat", "dog"), None, None),
    ],
)
def test_folders_whose_order_may_be_another_are_remarked_on(
    folders: tuple[str, ...], classes: int | None, said: str | None
) -> None:
    found = remarks_on_folders(folders, classes)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
