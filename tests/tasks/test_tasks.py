"""Metrics of every task against torchmetrics or scikit-learn, and what agreement says of equal and other outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.functional.retrieval import retrieval_hit_rate

from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import DataError
from snowsdeploy.tasks.any_output import AnyOutput
from snowsdeploy.tasks.base import AbstractTask, Array
from snowsdeploy.tasks.choose import choose_task
from snowsdeploy.tasks.embed import Embed, hits
from snowsdeploy.tasks.evaluate import compare_outputs
from snowsdeploy.tasks.restore import MAX_PSNR, Restore
from snowsdeploy.tasks.segment import Segment
from snowsdeploy.values import Accuracy, DataInfo

DATA = DataInfo(source="made", items=10, labelled=True, origin="o", fingerprint="f")
RNG = np.random.default_rng(0)


def compared(task: AbstractTask, dense: Array, sparse: Array, targets: Array | None) -> Accuracy:
    samples = Samples(lambda items: torch.zeros(len(items)), tuple(range(len(dense))), targets, DATA)
    return compare_outputs(task, [dense], [sparse], samples)


def values(found: Accuracy) -> dict[str, tuple[float, float, float]]:
    return {m.name: (m.dense.value, m.sparse.value, m.drop.value) for m in found.metrics}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 9999), classes=st.integers(2, 5), ignored=st.booleans())
def test_mean_iou_is_that_of_scikit_learn(seed: int, classes: int, ignored: bool) -> None:
    rng = np.random.default_rng(seed)
    dense, sparse = rng.normal(size=(2, 6, classes, 5, 4))
    masks = rng.integers(0, classes, (6, 5, 4))
    if ignored:
        masks[rng.random(masks.shape) < 0.3] = 255
    found = values(compared(Segment(ignore_index=255), dense, sparse, masks))["miou"]
    counted = masks != 255
    for scores, value in zip((dense, sparse), found, strict=False):
        answers = scores.argmax(1)[counted]
        there = np.union1d(answers, masks[counted])
        expected = jaccard_score(masks[counted], answers, average="macro", labels=there, zero_division=0)
        assert value == pytest.approx(expected)
    assert found[2] == pytest.approx(100 * (found[0] - found[1]))


def test_a_single_channel_is_foreground_where_it_is_likely() -> None:
    logits = np.array([[[[-1.0, 0.4, 2.0]]]])
    masks = np.array([[[0, 1, 1]]])
    assert values(compared(Segment(), logits, logits, masks))["miou"][0] == 1.0
    likely = 1 / (1 + np.exp(-logits))
    assert values(compared(Segment(), likely, likely, masks))["miou"][0] == 1.0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 9999), scale=st.sampled_from([1.0, 255.0]))
def test_psnr_and_ssim_are_those_of_torchmetrics(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    targets = scale * rng.random((3, 3, 14, 13))
    dense, sparse = (targets + scale * noise * rng.normal(size=targets.shape) for noise in (0.05, 0.2))
    task = Restore().for_targets(targets)
    assert task.data_range == scale
    found = values(compared(task, dense, sparse, targets))
    a, t = torch.from_numpy(dense), torch.from_numpy(targets)
    psnr = peak_signal_noise_ratio(a, t, data_range=scale, dim=(1, 2, 3), reduction="elementwise_mean")
    assert found["psnr"][0] == pytest.approx(float(psnr), rel=1e-6)
    assert found["ssim"][0] == pytest.approx(
        float(structural_similarity_index_measure(a, t, data_range=scale)), rel=1e-6
    )
    assert found["psnr"][0] > found["psnr"][1]
    assert found["psnr"][2] == pytest.approx(found["psnr"][0] - found["psnr"][1])


def test_equal_images_have_a_finite_psnr() -> None:
    images = RNG.random((2, 1, 4, 4))
    found = compared(Restore(), images, images, images)
    assert values(found)["psnr"][0] == MAX_PSNR
    assert found.agreement[0].measured.value == MAX_PSNR


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 9999))
def test_recall_is_the_hit_rate_of_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, labels = rng.normal(size=(30, 6)), rng.integers(0, 8, 30)
    task = Embed()
    found = hits(task.score([vectors], labels))
    length = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = length @ length.T
    for k, right in found.items():
        expected = []
        for query in range(30):
            others = np.delete(np.arange(30), query)
            relevant = torch.from_numpy(labels[others] == labels[query])
            if relevant.any():
                expected.append(bool(retrieval_hit_rate(torch.from_numpy(near[query, others]), relevant, top_k=k)))
        assert right.tolist() == expected


def test_outputs_of_any_meaning_are_compared_one_by_one() -> None:
    task = AnyOutput(("boxes", "count"))
    boxes, counts = RNG.normal(size=(4, 5, 4)), np.array([1, 2, 3, 4])
    other = boxes.copy()
    other[0] *= -1
    measured = {
        m.name: m.measured.value for m in task.agreement(task.compare([boxes, counts], [other, np.array([1, 2, 3, 5])]))
    }
    assert measured == pytest.approx({"cosine.boxes": 0.5, "relative_error.boxes": 0.5, "equal.count": 0.75})
    zeros = np.zeros((2, 3))
    assert [m.measured.value for m in AnyOutput().agreement(AnyOutput().compare([zeros], [zeros]))] == [1.0, 0.0]


SCORES = ("scores", (10,))
MAP = ("map", (3, 16, 16))


@pytest.mark.parametrize(
    ("output", "targets", "scores", "name"),
    [
        (SCORES, None, True, "classify"),
        (SCORES, None, False, "embed"),
        (MAP, None, True, "restore"),
        (("map", (4, 16, 16)), None, True, "segment"),
        (MAP, np.zeros((2, 16, 16), int), True, "segment"),
        (("map", (1, 16, 16)), np.zeros((2, 1, 16, 16)), True, "restore"),
        (("boxes", (84, 8400)), None, True, "any"),
        (("logit", (1,)), None, True, "any"),
        (("number", ()), None, True, "any"),
    ],
)
def test_the_task_is_what_output_and_targets_look_like(
    output: tuple[str, tuple[int, ...]], targets: Array | None, scores: bool, name: str
) -> None:
    assert choose_task("auto", [output], targets, scores=scores, image=(3, 16, 16)).name == name


@pytest.mark.parametrize(
    ("task", "output", "targets", "said"),
    [
        (Segment(), MAP, np.zeros((2, 8, 8), int), "resize the masks"),
        (Segment(), MAP, np.full((2, 16, 16), 255), "--ignore-index 255"),
        (Segment(), MAP, np.zeros(2, int), "name another --task"),
        (Restore(), MAP, np.zeros((2, 3, 8, 8)), "name another --task"),
        (Embed(), SCORES, np.arange(5), "add items of the same labels"),
        (Embed(), SCORES, np.zeros((5, 2)), "name another --task"),
    ],
)
def test_targets_of_another_kind_are_refused(
    task: AbstractTask, output: tuple[str, tuple[int, ...]], targets: Array, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        task.require_targets(targets, output)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["classify", "segment", "restore"])
def test_a_task_that_the_output_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"--task {name} does not fit"):
        choose_task(name, [("boxes", (84, 8400) if name != "segment" else (1,))])  # type: ignore[arg-type]
