"""Which of a checkpoint's state dicts is a model's, and what is removed from its names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snowsdeploy.errors import SourceError
from snowsdeploy.models.checkpoint import StateDict, read_checkpoint
from snowsdeploy.models.formats import detect_format
from snowsdeploy.models.unwrap import unwrapped
from snowsdeploy.models.weights import Weights, load_weights

State = dict[str, Tensor]


class Wrapped(nn.Module):
    """Its only child is called as DataParallel calls its own."""

    def __init__(self) -> None:
        super().__init__()
        self.module = make(0)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight


def make(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))


MINE: State = dict(make(1).state_dict())
OTHER: State = dict(make(2).state_dict())


def under(prefix: str, state: State = MINE) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def read(path: Path, content: object) -> tuple[StateDict, ...]:
    torch.save(content, path)
    return read_checkpoint(path, detect_format(path), allow_pickle=False).state_dicts


# What trainers write, and what the report says was taken.
WRITTEN: dict[str, tuple[Callable[[], object], str]] = {
    "plain": (lambda: MINE, ""),
    "tutorial": (
        lambda: {"epoch": 3, "model_state_dict": MINE, "optimizer_state_dict": {"state": {}}, "loss": torch.ones(())},
        "model_state_dict",
    ),
    "net": (lambda: {"net": MINE, "acc": torch.tensor(91.0)}, "net"),
    "averaged inside": (lambda: {"model_ema": {"module": MINE, "decay": 0.99}, "model": OTHER}, "model_ema.module"),
    "averaged": (lambda: {"model": OTHER, "ema": MINE}, "ema"),
    "lightning": (
        lambda: {"state_dict": under("model."), "hyper_parameters": {"lr": 0.1}},
        "state_dict, without the prefix model.",
    ),
    "lightning with a loss": (
        lambda: {"state_dict": under("model.") | {"criterion.weight": torch.ones(4)}},
        "state_dict, without the prefix model.",
    ),
    "a part of a detector": (
        lambda: {"state_dict": under("backbone.") | {"head.weight": torch.ones(4, 4)}},
        "state_dict, without the prefix backbone.",
    ),
    "DataParallel": (lambda: under("module."), ""),
    "compiled inside": (lambda: {k.replace("2.", "2._orig_mod."): v for k, v in MINE.items()}, ""),
    "wrapped inside": (lambda: {k.replace("2.", "2.module."): v for k, v in MINE.items()}, ""),
    "lightning compiled": (
        lambda: {"state_dict": under("model._orig_mod.")},
        "state_dict, without the prefix model._orig_mod.",
    ),
    "an own key": (lambda: {"weights_of_mine": MINE, "note": "x"}, "weights_of_mine"),
    "counted by thop": (lambda: MINE | {"total_ops": torch.ones(1), "0.total_params": torch.ones(1)}, ""),
    "NVIDIA's masks": (lambda: MINE | {"0.__weight_mma_mask": torch.ones(4, 3, 3, 3, dtype=torch.bool)}, ""),
    "numpy's numbers": (lambda: {"model": MINE, "best": np.float64(0.9), "step": np.int64(3)}, "model"),
    "half": (lambda: {name: t.half() if t.is_floating_point() else t for name, t in MINE.items()}, ""),
    "bfloat16": (lambda: {name: t.bfloat16() if t.is_floating_point() else t for name, t in MINE.items()}, ""),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_what_trainers_write_is_taken(tmp_path: Path, case: str) -> None:
    content, said = WRITTEN[case]
    module = make(0)
    taken = load_weights(module, read(tmp_path / "m.pt", content()), "mine")
    assert str(taken) == said
    tolerance = 0.01 if case in ("half", "bfloat16") else 0
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, MINE[name], rtol=tolerance, atol=0)


def test_names_that_fit_as_they_are_stay_so(tmp_path: Path) -> None:
    module = Wrapped()
    load_weights(module, read(tmp_path / "m.pt", under("module.")), "wrapped")
    assert torch.equal(module.module.state_dict()["0.weight"], MINE["0.weight"])
    load_weights(module, read(tmp_path / "m.pt", under("module.module.", OTHER)), "wrapped")
    assert torch.equal(module.module.state_dict()["0.weight"], OTHER["0.weight"])


def test_tied_weights_are_once_in_a_safetensors_file(tmp_path: Path) -> None:
    saved, module = Tied(), Tied()
    safetensors.torch.save_model(saved, str(tmp_path / "m.safetensors"))
    path = tmp_path / "m.safetensors"
    load_weights(module, read_checkpoint(path, detect_format(path), allow_pickle=False).state_dicts, "tied")
    assert torch.equal(module.second.weight, saved.first.weight)


def test_several_that_fit_are_a_list_to_choose_from(tmp_path: Path) -> None:
    found = read(tmp_path / "m.pt", {"student": MINE, "teacher": OTHER})
    with pytest.raises(SourceError, match="several state dicts") as caught:
        load_weights(make(0), found, "mine")
    assert str(caught.value.seen) == "student, teacher"
    assert str(caught.value.fix) == "choose one: --state-key student"
    assert load_weights(make(0), found, "mine", state_key="teacher").key == "teacher"
    with pytest.raises(SourceError, match="names no state dict") as caught:
        load_weights(make(0), found, "mine", state_key="pupil")
    assert str(caught.value.allowed) == "student, teacher"


def test_several_prefixes_that_fit_are_a_list_to_choose_from(tmp_path: Path) -> None:
    found = read(tmp_path / "m.pt", {"state_dict": under("student.") | under("teacher.", OTHER)})
    with pytest.raises(SourceError, match="several parts") as caught:
        load_weights(make(0), found, "mine")
    assert str(caught.value.fix) == "choose one: --strip-prefix student."
    module = make(0)
    load_weights(module, found, "mine", strip_prefix="teacher.")
    assert torch.equal(module.state_dict()["0.weight"], OTHER["0.weight"])


def test_what_is_closest_is_described(tmp_path: Path) -> None:
    found = read(tmp_path / "m.pt", {"state_dict": under("model.", MINE | {"2.weight": torch.ones(7, 4, 1, 1)})})
    with pytest.raises(SourceError, match="do not fit the architecture mine") as caught:
        load_weights(make(0), found, "mine")
    assert str(caught.value.seen) == (
        "state_dict, without the prefix model.; 1 shape in file: 2.weight (7, 4, 1, 1), not (4, 4, 1, 1)"
    )


@hypothesis_settings(deadline=None, max_examples=40)
@given(
    prefix=st.lists(st.sampled_from(["model", "module", "_orig_mod", "net", "a", "0"]), max_size=3),
    beside=st.sampled_from(["", "optimizer", "head", "0"]),
    key=st.sampled_from([None, "state_dict", "model", "ema", "mine"]),
)
def test_any_prefix_and_key_load_the_same_weights(prefix: list[str], beside: str, key: str | None) -> None:
    tensors = under("".join(f"{part}." for part in prefix))
    if beside and prefix and beside != prefix[0]:
        tensors = tensors | {f"{beside}.extra": torch.ones(2)}
    module = make(0)
    load_weights(module, [StateDict(key or "", tensors)], "mine")
    assert all(torch.equal(tensor, MINE[name]) for name, tensor in module.state_dict().items())


def test_wrappers_around_modules_are_removed() -> None:
    module = make(0)
    averaged = torch.optim.swa_utils.AveragedModel(module)
    assert unwrapped(nn.DataParallel(module)) is module
    assert unwrapped(torch.compile(module)) is module
    assert unwrapped(averaged) is averaged.module
    assert unwrapped(nn.DataParallel(torch.compile(nn.DataParallel(module)))) is module
    own = Wrapped()
    assert unwrapped(own) is own


def test_a_reading_says_what_it_is() -> None:
    assert str(Weights("", "", {})) == ""
    assert str(Weights("net", "a.", {})) == "net, without the prefix a."
