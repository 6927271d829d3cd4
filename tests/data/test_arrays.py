"""`.npz` files: pixels, ready inputs, labels, damage."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from snowsdeploy.data.arrays import load_arrays
from snowsdeploy.data.open import natural_input_size, open_samples
from snowsdeploy.errors import DataError
from snowsdeploy.values import Preprocessing

RGB = Preprocessing(input_size=(3, 8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
GREY = Preprocessing(input_size=(1, 8, 8), mean=(0.5,), std=(0.25,))


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def save(tmp_path, **arrays):
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    return str(tmp_path / "a.npz")


def test_pixels_are_scaled_and_normalised(tmp_path):
    x = pixels(5, 8, 8, 3)
    images = open_samples(save(tmp_path, x=x, y=np.arange(5)), RGB)
    expected = (x.astype(np.float64) / 255 - RGB.mean) / RGB.std
    batch = images.read(range(5))
    assert batch.dtype == torch.float32
    assert batch.is_contiguous()
    np.testing.assert_allclose(batch.numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)
    assert images.labels.tolist() == [0, 1, 2, 3, 4]


def test_pixels_agree_with_the_same_image_as_a_file(tmp_path):
    x = pixels(1, 8, 8, 3)
    (tmp_path / "files").mkdir()
    Image.fromarray(x[0]).save(tmp_path / "files" / "0.png")
    whole = RGB.model_copy(update={"crop_pct": 1.0})
    from_file = open_samples(str(tmp_path / "files"), whole).read((0,))
    torch.testing.assert_close(open_samples(save(tmp_path, x=x), whole).read((0,)), from_file)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_taken_as_they_are(tmp_path, dtype):
    x = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(dtype)
    images = open_samples(save(tmp_path, x=x), RGB)
    np.testing.assert_array_equal(images.read((2, 0)).numpy(), x[[2, 0]].astype(np.float32))
    assert images.labels is None


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 8, 8, 1)])
def test_grey(tmp_path, shape):
    path = save(tmp_path, x=pixels(*shape))
    assert natural_input_size(path) == (1, 8, 8)
    assert open_samples(path, GREY).read((0, 1)).shape == (2, 1, 8, 8)
    with pytest.raises(DataError, match="input size") as caught:
        open_samples(path, RGB)
    assert "1x8x8" in str(caught.value)
    assert "3x8x8" in str(caught.value)


def test_natural_size(tmp_path):
    path = save(tmp_path, x=pixels(2, 6, 8, 3), y=np.zeros(2, dtype=np.int32))
    assert natural_input_size(path) == (3, 6, 8)
    assert natural_input_size(f"{path}[:1]") == (3, 6, 8)
    assert natural_input_size(str(tmp_path / "none.npz")) is None


def test_slice_selects_items_and_labels(tmp_path):
    x = pixels(6, 8, 8, 3)
    images = open_samples(save(tmp_path, x=x, y=np.arange(6)) + "[1::2]", RGB)
    assert images.labels.tolist() == [1, 3, 5]
    whole = open_samples(str(tmp_path / "a.npz"), RGB)
    torch.testing.assert_close(next(images.batches(9)), whole.read((1, 3, 5)))
    assert images.info.origin == whole.info.origin


def test_origin_is_of_the_content(tmp_path):
    first = open_samples(save(tmp_path, x=pixels(2, 8, 8, 3)), RGB).info
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    assert open_samples(str(tmp_path / "b.npz"), RGB).info.origin == first.origin
    assert open_samples(save(tmp_path, x=pixels(3, 8, 8, 3)), RGB).info.origin != first.origin


NAN = np.full((2, 3, 8, 8), np.nan, dtype=np.float32)


@pytest.mark.parametrize(
    ("arrays", "message", "hint"),
    [
        ({"images": pixels(2, 8, 8, 3)}, "no array x", "images"),
        ({"x": pixels(2, 8, 8, 3), "y": np.zeros(3, dtype=int)}, "do not fit its images", "[3]"),
        ({"x": pixels(2, 8, 8, 3), "y": np.array(["a", "b"])}, "does not hold numbers", "<U1"),
        ({"x": pixels(2, 8, 8, 3), "y": np.array([0, -1])}, "do not fit its images", "-1"),
        ({"x": pixels(2, 8, 8, 3).astype(np.int32)}, "wrong type or shape", "int32"),
        ({"x": pixels(2, 192)}, "wrong type or shape", "[2, 192]"),
        ({"x": pixels(0, 8, 8, 3)}, "wrong type or shape", "[0, 8, 8, 3]"),
        ({"x": pixels(2, 3, 8, 8)}, "wrong type or shape", "uint8 [n, H, W, C]"),
        ({"x": np.zeros((2, 8, 8, 3), dtype=np.float32)}, "wrong type or shape", "float [n, C, H, W]"),
        ({"x": np.array([{"a": 1}, None], dtype=object)}, "wrong type or shape", "object"),
        ({"x": pixels(2, 9, 9, 3)}, "input size", "3x9x9"),
        ({"x": NAN}, "NaN or Inf", "384 of 384 values"),
        ({"x": np.where(np.arange(384).reshape(2, 3, 8, 8) == 7, np.inf, 0.0)}, "NaN or Inf", "1 of 384 values"),
    ],
)
def test_messages(tmp_path, arrays, message, hint):
    path = save(tmp_path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        open_samples(path, RGB)
    assert hint in str(caught.value)
    assert path in str(caught.value)


def test_pickled_labels_are_refused(tmp_path):
    path = save(tmp_path, x=pixels(2, 8, 8, 3), y=np.array([{"a": 1}, None], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        open_samples(path, RGB)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.95])
def test_truncated(tmp_path, keep):
    path = save(tmp_path, x=pixels(20, 8, 8, 3), y=np.arange(20))
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError, match="cannot be read"):
        open_samples(path, RGB)


def test_flipped_bytes(tmp_path):
    path = save(tmp_path, x=pixels(200, 8, 8, 3))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[5000:5100] = bytes(100)
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        open_samples(path, RGB)


def test_a_bare_array_is_no_archive(tmp_path):
    np.save(tmp_path / "a.npy", pixels(2, 8, 8, 3))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(DataError, match="cannot be read"):
        open_samples(str(tmp_path / "a.npz"), RGB)


def test_real_cifar(real_data):
    path = str(real_data / "cifar10_test.npz")
    assert natural_input_size(path) == (3, 32, 32)
    preprocessing = Preprocessing(input_size=(3, 32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    images = open_samples(path + "[:1000]", preprocessing)
    assert len(images) == 1000
    assert set(images.labels.tolist()) == set(range(10))
    assert next(images.batches(100)).shape == (100, 3, 32, 32)


def test_a_vector_may_be_an_image_of_one_pixel(tmp_path: Path) -> None:
    path = tmp_path / "latent.npz"
    np.savez(path, x=np.ones((2, 64, 1, 1), dtype=np.float32))
    assert natural_input_size(str(path)) == (64, 1, 1)


def test_a_member_that_is_no_array_is_one_message(tmp_path: Path) -> None:
    """numpy hands out its bytes."""
    path = tmp_path / "images.npz"
    np.savez(path, x=np.zeros((4, 8, 8, 3), np.uint8), y=np.zeros(4, np.int64))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, b"other" + content if name == "y.npy" else content)
    with pytest.raises(DataError, match="npz file cannot be read") as caught:
        load_arrays(path, Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3))
    assert "y is no array" in str(caught.value.seen)
