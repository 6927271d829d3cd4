"""Modules that keep something between runs, as trainers pickle them: the trace must not depend on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from snowsdeploy.errors import GraphError
from snowsdeploy.models.caches import attributes_kept, forget_runs
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.models.trace import trace
from snowsdeploy.values import Preprocessing, SourceInfo

PREPROCESSING = Preprocessing(input_size=(3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
SOURCE = SourceInfo(source="test", format="factory")
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Head(nn.Module):
    """Decodes boxes by anchors that it makes when the shape of its input changes."""

    shape: tuple[int, ...] | None = None
    anchors = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        if self.shape != x.shape:
            self.anchors = torch.arange(x.shape[2] * x.shape[3], dtype=x.dtype)
            self.shape = x.shape
        return x.flatten(2) + self.anchors


class Detector(nn.Module):
    """Gives decoded boxes and, beside them, the maps that they come from."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.map, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), Head()
        self.names = {0: "cat", 1: "dog"}

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        first = self.stem(x).relu()
        second = self.map(first)
        return self.head(second), [first, second, None]


def validated(batch: int) -> Detector:
    """As a trainer leaves it: run on a last batch, then in half precision."""
    torch.manual_seed(0)
    module = Detector().eval()
    with torch.no_grad():
        module(torch.randn(batch, 3, 8, 8))
    return module.half()


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("keys", [("model", "ema"), ("ema", "model")])
def test_a_trainers_checkpoint_of_a_module_that_was_run(batch: int, keys: tuple[str, str], tmp_path: Path) -> None:
    full, empty = keys
    torch.save({"epoch": -1, full: validated(batch), empty: None, "train_args": {"imgsz": 8}}, tmp_path / "best.pt")
    loaded = load_model(ModelRequest(str(tmp_path / "best.pt"), allow_pickle=True))
    assert isinstance(loaded.model, Detector)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    program = trace(loaded.model, PREPROCESSING, loaded.source)
    expected = validated(batch).float()
    for size in (1, 2, 3, 16):
        images = torch.randn(size, 3, 8, 8)
        with torch.no_grad():
            boxes, (first, second, _) = expected(images)
        torch.testing.assert_close(program.run(images), (boxes, first, second))


def test_the_averaged_module_counts_before_the_trained_one(tmp_path: Path) -> None:
    ema, model = validated(2), validated(2)
    with torch.no_grad():
        model.map.bias.add_(1)
    torch.save({"model": model, "ema": ema}, tmp_path / "last.pt")
    loaded = load_model(ModelRequest(str(tmp_path / "last.pt"), allow_pickle=True))
    torch.testing.assert_close(loaded.model.state_dict()["map.bias"], ema.float().state_dict()["map.bias"])


def test_a_trace_leaves_the_attributes_of_a_module_alone() -> None:
    module = Detector().eval()
    with torch.no_grad():
        module(IMAGES)
    del module.head.shape  # so that the trace makes the anchors anew, of tensors without values
    trace(module, PREPROCESSING, SOURCE)
    assert type(module.head.anchors) is Tensor
    assert "shape" not in vars(module.head)


class Accumulating(nn.Module):
    """Its class has a value for what it keeps, and its outputs depend on it: no cache."""

    offset = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 7:
            return x
        out = x.mean((2, 3)) + self.offset
        self.offset = self.offset * 1
        return out


def test_what_outputs_depend_on_is_no_cache() -> None:
    module = Accumulating()
    module.offset = torch.ones(1)
    assert not forget_runs(module, module, IMAGES)
    assert torch.equal(module.offset, torch.ones(1))


def test_a_failed_trace_is_told_where_nothing_was_cached() -> None:
    with pytest.raises(GraphError, match="cannot trace the model") as caught:
        trace(Accumulating(), PREPROCESSING, SOURCE)
    assert "7" in str(caught.value.seen)


def test_a_module_that_does_not_run_keeps_all() -> None:
    module = validated(2)
    assert not forget_runs(module, module, IMAGES)  # float images, half weights
    assert module.head.shape is not None


def test_attributes_come_back_after_an_error() -> None:
    module = Head()
    module.note = "here"
    with pytest.raises(RuntimeError), attributes_kept(module):
        _change_and_fail(module)
    assert module.note == "here"
    assert not hasattr(module, "more")


def _change_and_fail(module: Head) -> None:
    module.note, module.more = "there", 1
    raise RuntimeError
