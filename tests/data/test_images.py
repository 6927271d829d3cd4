"""Samples, and image files: ImageFolder, flat folders, timm's transform, damage."""

import os
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from snowsdeploy.data.open import natural_input_size, open_samples
from snowsdeploy.errors import DataError
from snowsdeploy.values import Preprocessing

RGB = Preprocessing(input_size=(3, 32, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
GREY = Preprocessing(input_size=(1, 32, 32), mean=(0.5,), std=(0.25,))


def picture(seed, size=(48, 40)):
    low = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(low).resize(size, Image.Resampling.BILINEAR)


@pytest.fixture
def folder(tmp_path):
    """Three classes with 2, 3 and 1 images; created in no sorted order."""
    seed = 0
    for name, count in [("zebra", 2), ("apple", 3), ("mango", 1)]:
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in reversed(range(count)):
            picture(seed).save(tmp_path / "images" / name / f"{i}.png")
            seed += 1
    return tmp_path / "images"


def test_labels_are_the_sorted_class_index(folder):
    images = open_samples(str(folder), RGB)
    assert len(images) == 6
    assert images.labels.tolist() == [0, 0, 0, 1, 2, 2]
    assert images.info.labelled
    assert natural_input_size(str(folder)) is None


def test_a_slice_keeps_the_labels_of_the_whole_folder(folder):
    odd = open_samples(f"{folder}[1::2]", RGB)
    assert odd.indices == (1, 3, 5)
    assert odd.labels.tolist() == [0, 1, 2]
    assert open_samples(f"{folder}/[4:]", RGB).labels.tolist() == [2, 2]
    whole = open_samples(str(folder), RGB)
    torch.testing.assert_close(next(odd.batches(3)), whole.read((1, 3, 5)))


def test_a_folder_without_images_still_is_a_class(folder):
    (folder / "banana").mkdir()
    assert open_samples(str(folder), RGB).labels.tolist() == [0, 0, 0, 2, 3, 3]


def test_flat_folder_has_no_labels(tmp_path):
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no image")
    images = open_samples(str(tmp_path), RGB)
    assert images.labels is None
    assert not images.info.labelled
    assert next(images.batches(8)).shape == (3, 3, 32, 32)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize(("crop_pct", "crop_mode"), [(0.9, "center"), (1.0, "squash"), (0.8, "border")])
def test_files_go_through_timms_evaluation_transform(folder, interpolation, crop_pct, crop_mode):
    update = {"interpolation": interpolation, "crop_pct": crop_pct, "crop_mode": crop_mode}
    images = open_samples(str(folder), RGB.model_copy(update=update))
    transform = timm.data.create_transform(
        input_size=(3, 32, 32), mean=RGB.mean, std=RGB.std, is_training=False, **update
    )
    expected = transform(Image.open(folder / "mango" / "0.png").convert("RGB"))
    torch.testing.assert_close(images.read((3,))[0], expected, rtol=0, atol=0)


def test_grey_models_get_grey_images(folder):
    images = open_samples(str(folder), GREY)
    assert next(images.batches(6)).shape == (6, 1, 32, 32)
    with pytest.raises(DataError, match="no grey or colour image"):
        open_samples(str(folder), Preprocessing(input_size=(4, 32, 32), mean=(0.5,) * 4, std=(1,) * 4))


def test_every_mode_of_a_file_becomes_rgb(tmp_path):
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        suffix = "jpg" if mode == "CMYK" else "png"
        picture(0).convert(mode).save(tmp_path / f"{mode}.{suffix}")
    assert next(open_samples(str(tmp_path), RGB).batches(5)).shape == (5, 3, 32, 32)


def test_order_and_repeats_follow_the_indices(folder):
    images = open_samples(str(folder), RGB)
    batch = images.read((5, 0, 5))
    torch.testing.assert_close(batch[0], batch[2], rtol=0, atol=0)
    torch.testing.assert_close(batch[1], images.read((0,))[0], rtol=0, atol=0)


def test_batches_cover_everything_in_order(folder):
    images = open_samples(str(folder), RGB)
    sizes = [len(batch) for batch in images.batches(4)]
    assert sizes == [4, 2]
    torch.testing.assert_close(torch.cat(list(images.batches(4))), images.read(range(6)))


def test_sample_is_seeded_and_keeps_labels(folder):
    images = open_samples(str(folder), RGB)
    first, again, other = images.sample(4, 0), images.sample(4, 0), images.sample(4, 1)
    assert first.indices == again.indices
    assert first.info == again.info
    assert len(set(first.indices)) == 4
    assert other.indices != first.indices
    assert first.info.items == 4
    assert first.labels.tolist() == [images.labels[i] for i in first.indices]
    assert first.info.fingerprint != images.info.fingerprint
    assert sorted(images.sample(100, 0).indices) == sorted(images.indices)
    assert images.sample(100, 0).info.items == 6


def test_sampling_a_slice_stays_inside_it(folder):
    images = open_samples(f"{folder}[1::2]", RGB)
    assert set(images.sample(2, 3).indices) < {1, 3, 5}


def test_fingerprint(folder):
    info = open_samples(str(folder), RGB).info
    assert open_samples(f"{folder}/", RGB).info.fingerprint == info.fingerprint
    assert open_samples(f"{folder}[1:]", RGB).info.fingerprint != info.fingerprint
    assert open_samples(f"{folder}[1:]", RGB).info.origin == info.origin
    other = RGB.model_copy(update={"crop_pct": 1.0})
    assert open_samples(str(folder), other).info.fingerprint != info.fingerprint
    assert open_samples(str(folder), other).info.origin == info.origin
    picture(9).save(folder / "apple" / "9.png")
    assert open_samples(str(folder), RGB).info.origin != info.origin


def test_image_sets_are_values(folder):
    images = open_samples(str(folder), RGB)
    assert replace(images, targets=None).labels is None
    assert images.labels is not None


def damage(folder, case):
    path = folder / "mango" / "0.png"
    if case == "text":
        path.write_text("no image")
    elif case == "empty file":
        path.write_bytes(b"")
    elif case == "cut png":
        path.write_bytes(path.read_bytes()[:200])
    elif case == "cut jpg":
        picture(0, (200, 200)).save(folder / "mango" / "0.jpg")
        path.unlink()
        path = folder / "mango" / "0.jpg"
        path.write_bytes(path.read_bytes()[:700])
    return path


@pytest.mark.parametrize("case", ["text", "empty file", "cut png", "cut jpg"])
def test_a_file_that_is_no_image_is_named_when_opened(folder, case):
    path = damage(folder, case)
    with pytest.raises(DataError, match="cannot be read") as caught:
        open_samples(str(folder), RGB)
    assert str(path) in str(caught.value.seen)
    assert len(open_samples(f"{folder}[:3]", RGB)) == 3  # what is not selected does not matter


def test_an_image_that_is_cut_after_it_was_opened_is_named(folder):
    images = open_samples(str(folder), RGB)
    path = damage(folder, "cut png")
    with pytest.raises(DataError, match="cannot be read") as caught:
        list(images.batches(2))
    assert str(path) in str(caught.value.seen)


@pytest.mark.parametrize("preprocessing", [RGB, GREY], ids=["colour", "grey"])
def test_sixteen_bits_are_scaled_and_not_cut_off(folder, tmp_path, preprocessing):
    ramp = np.linspace(0, 255, 32 * 32).round().astype(np.uint8).reshape(32, 32)
    for depth, pixels in ((8, ramp), (16, ramp.astype(np.uint16) * 257)):
        (tmp_path / str(depth)).mkdir()
        Image.fromarray(pixels).save(tmp_path / str(depth) / "0.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "16" / "1.tif")
    eight, sixteen = (open_samples(str(tmp_path / depth), preprocessing) for depth in ("8", "16"))
    expected = eight.rows(0, 1)
    assert torch.equal(sixteen.rows(0, 2), expected.expand(2, -1, -1, -1))
    assert float(expected.std()) > 0.1


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_without_a_known_range_are_refused_when_opened(tmp_path, kind):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8), kind)).save(tmp_path / "images" / "0.tif")
    with pytest.raises(DataError, match="black and white"):
        open_samples(str(tmp_path / "images"), RGB)


@pytest.mark.parametrize("place", ["zebra/.ipynb_checkpoints", "zebra/__MACOSX/zebra", "__MACOSX", ".git/zebra"])
def test_what_programs_leave_beside_images_does_not_count(folder, place):
    before = open_samples(str(folder), RGB)
    (folder / place).mkdir(parents=True)
    picture(7).save(folder / place / "0.png")
    after = open_samples(str(folder), RGB)
    assert after.labels.tolist() == before.labels.tolist()
    assert after.info == before.info


def test_names_in_other_encodings_are_read_like_any(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    picture(0).save(folder / os.fsdecode(b"\xe9t\xe9.png"))
    images = open_samples(str(folder), RGB)
    assert images.rows(0, 1).shape == (1, 3, 32, 32)
    assert "caf" in images.info.model_dump_json()


@pytest.mark.parametrize(
    ("make", "source", "message"),
    [
        ("nothing", "none", "--eval-data does not exist"),
        ("nothing", "none/deep/er", "--eval-data does not exist"),
        ("nothing", "images.npz", "--eval-data does not exist"),
        ("empty", "data", "holds no image"),
        ("empty classes", "data", "holds no image"),
        ("text file", "data/notes.txt", "a file of an unknown kind"),
        ("mixed", "data", "both in class folders and beside them"),
        ("flat", "data[5:]", "the slice selects no item"),
        ("flat", "data[abc]", "not a Python slice"),
        ("flat", "data[0]", "not a Python slice"),
        ("flat", "data[::0]", "not a Python slice"),
        ("flat", "[0::2]", "only a slice"),
        ("flat", "", "the data source is empty"),
    ],
)
def test_messages(tmp_path, monkeypatch, make, source, message):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    if make != "nothing":
        data.mkdir()
    if make in ("empty classes", "mixed"):
        (data / "a").mkdir()
    if make == "text file":
        (data / "notes.txt").write_text("x")
    if make in ("flat", "mixed"):
        picture(0).save(data / "0.png")
    if make == "mixed":
        picture(0).save(data / "a" / "0.png")
    with pytest.raises(DataError, match=message):
        open_samples(source, RGB, option="--eval-data")


def test_a_folder_whose_name_ends_in_brackets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run[1]").mkdir()
    for i in range(2):
        picture(i).save(tmp_path / "run[1]" / f"{i}.png")
    assert len(open_samples("run[1]", RGB)) == 2
    assert len(open_samples("run[1][1:]", RGB)) == 1


def test_real_imagenet_sample(real_data):
    model = timm.create_model("deit_tiny_patch16_224")
    config = timm.data.resolve_model_data_config(model)
    keys = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
    preprocessing = Preprocessing(**{key: config[key] for key in keys})
    even = open_samples(f"{real_data / 'imagenet_sample'}[0::2]", preprocessing)
    assert len(even) == 500
    assert even.labels.tolist() == list(range(0, 1000, 2))
    path = sorted((real_data / "imagenet_sample").rglob("*.jpg"))[2]
    expected = timm.data.create_transform(**config, is_training=False)(Image.open(path).convert("RGB"))
    torch.testing.assert_close(even.read(even.indices[1:2])[0], expected, rtol=0, atol=0)
