"""Data sets by timm's name, without the network: `create_dataset` is replaced."""

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image

from snowsdeploy.data.open import open_samples
from snowsdeploy.errors import DataError
from snowsdeploy.values import Preprocessing

RGB = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3, crop_pct=1.0)


class Pictures:
    """Six pictures by index, as timm's and torchvision's data sets are."""

    def __init__(self):
        self.x = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return Image.fromarray(self.x[index]), index % 3


@pytest.fixture
def asked(monkeypatch):
    """What create_dataset was asked for."""
    seen = {}

    def create_dataset(name, **options):
        seen.update(name=name, **options)
        return Pictures()

    monkeypatch.setattr(timm.data, "create_dataset", create_dataset)
    return seen


@pytest.mark.parametrize(
    ("source", "name", "split"),
    [("torch/cifar10", "torch/cifar10", "validation"), ("hfds/user/data:test", "hfds/user/data", "test")],
)
def test_names_and_splits(asked, source, name, split):
    images = open_samples(source, RGB)
    assert (asked["name"], asked["split"]) == (name, split)
    assert (asked["root"] is None) == (not name.startswith("torch/"))
    assert images.labels.tolist() == [0, 1, 2, 0, 1, 2]
    expected = (torch.from_numpy(Pictures().x[4]).permute(2, 0, 1) / 255 - 0.5) / 0.25
    torch.testing.assert_close(images.read((4,))[0], expected)


def test_a_slice_asks_for_the_labels_of_its_items_only(asked, monkeypatch):
    touched = []
    original = Pictures.__getitem__
    monkeypatch.setattr(Pictures, "__getitem__", lambda self, i: (touched.append(i), original(self, i))[1])
    images = open_samples("hfds/user/data[3:5]", RGB)
    assert images.labels.tolist() == [0, 1]
    assert set(touched) == {0, 3, 4}  # the first proves that the data set can be indexed


def test_torchvisions_targets_are_used(asked, monkeypatch):
    monkeypatch.setattr(Pictures, "targets", [5, 4, 3, 2, 1, 0], raising=False)
    assert open_samples("torch/cifar10[1:3]", RGB).labels.tolist() == [4, 3]


def test_failure_is_one_message(monkeypatch):
    def create_dataset(name, **_):
        raise ConnectionError("no route\nwith details")

    monkeypatch.setattr(timm.data, "create_dataset", create_dataset)
    with pytest.raises(DataError, match="--data names a data set that timm cannot open") as caught:
        open_samples("hfds/user/data", RGB)
    assert caught.value.seen == "hfds/user/data: ConnectionError: no route"


def test_other_names_never_reach_timm(monkeypatch):
    def create_dataset(name, **_):
        pytest.fail("asked timm")

    monkeypatch.setattr(timm.data, "create_dataset", create_dataset)
    with pytest.raises(DataError, match="does not exist"):
        open_samples("cifar10", RGB)
