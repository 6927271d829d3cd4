"""What is wrong with the data is said before what only follows from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from snowsdeploy.errors import DataError, UsageError
from snowsdeploy.settings.jobs import PlanJob
from snowsdeploy.stages.inputs import load_inputs

HERE = "tests.stages.test_inputs"


def build() -> nn.Module:
    """A module that does not say how images become its input."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4 * 4 * 4, 3))


def refuse_to_load() -> nn.Module:
    """A module that nobody should have to wait for."""
    raise AssertionError


@pytest.mark.parametrize("option", ["--data", "--eval-data"])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nosuch", "does not exist"),
        ("nosuch.npz", "does not exist"),
        ("nosuch[0::2]", "does not exist"),
        ("empty", "holds no image"),
        ("bad.npz", "cannot be read"),
        ("good.npz[0:2:0]", "not a Python slice"),
        ("notes.txt", "a file of an unknown kind"),
    ],
)
def test_a_wrong_source_is_told_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("bad.npz").write_bytes(b"PK\x03\x04")
    Path("notes.txt").write_text("x", encoding="utf-8")
    np.savez("good.npz", x=np.zeros((4, 8, 8, 3), dtype=np.uint8))
    data, eval_data = (source, None) if option == "--data" else ("good.npz", source)
    with pytest.raises(DataError, match=message):
        load_inputs(PlanJob(model=f"{HERE}:refuse_to_load", data=data), eval_data)


def test_what_the_images_lack_is_told_of_a_source_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "good.npz"
    np.savez(path, x=np.zeros((4, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(UsageError, match="nothing says how images become") as refused:
        load_inputs(PlanJob(model=f"{HERE}:build", data=str(path)))
    assert refused.value.seen == "not given: --mean, --std"
    assert "--mean and --std" in str(refused.value.fix)
