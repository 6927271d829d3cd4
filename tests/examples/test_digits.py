"""The shipped example is what its README says it is."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from snowsdeploy.data.open import natural_input_size, open_samples
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.values import Preprocessing

FOLDER = Path(__file__).parents[2] / "examples" / "digits"
PREPROCESSING = Preprocessing(input_size=(1, 32, 32), mean=(0.3,), std=(0.35,))


def test_files_are_small():
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) < 3_000_000


def test_checkpoint_has_the_form_users_have():
    content = torch.load(FOLDER / "digits.pth", weights_only=True)
    assert content["arch"] == "test_resnet"
    assert all(name.startswith("module.") for name in content["state_dict"])


def test_accuracy_is_what_the_readme_says():
    loaded = load_model(ModelRequest(str(FOLDER / "digits.pth"), model_args={"num_classes": 10, "in_chans": 1}))
    assert natural_input_size(str(FOLDER / "test.npz")) == PREPROCESSING.input_size
    images = open_samples(str(FOLDER / "test.npz"), PREPROCESSING)
    with torch.no_grad():
        logits = torch.cat([loaded.model(batch) for batch in images.batches(300)])
    top1 = 100 * float(np.mean(logits.argmax(1).numpy() == images.labels))
    said = re.search(r"([\d.]+) % right", (FOLDER / "README.md").read_text())
    assert said is not None
    assert len(images) == 897
    assert top1 == pytest.approx(float(said[1]), abs=0.12)  # one image


def test_calibration_and_test_share_no_image():
    x = {name: np.load(FOLDER / f"{name}.npz")["x"] for name in ("calibration", "test")}
    seen = {image.tobytes() for image in x["calibration"]}
    assert len(x["calibration"]) == 512
    assert not any(image.tobytes() in seen for image in x["test"])


def test_script_makes_the_committed_data():
    pytest.importorskip("sklearn", reason="scikit-learn is needed only to train the example")
    spec = importlib.util.spec_from_file_location("digits_train", FOLDER / "train.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    split = script.load_split(seed=0)
    assert len(split["train"][0]) == 900
    for name in ("calibration", "test"):
        stored = np.load(FOLDER / f"{name}.npz")
        np.testing.assert_array_equal(stored["y"], split[name][1])
        np.testing.assert_allclose(stored["x"].astype(int), split[name][0].astype(int), atol=1)  # resize rounding
    images = open_samples(str(FOLDER / "test.npz"), PREPROCESSING)
    torch.testing.assert_close(images.read((0, 5)), script.normalise(split["test"][0][[0, 5]]))
