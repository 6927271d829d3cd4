"""Inputs and outputs by their names: of forward, of the data, of the user."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snowsdeploy.batch import Inputs
from snowsdeploy.errors import GraphError, UsageError
from snowsdeploy.models.adopt import Wanted, adopt
from snowsdeploy.models.fp32 import run_in_fp64
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.models.signature import random_batch
from snowsdeploy.models.sizes import other_sizes, resampled, sized
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.models.trace import trace
from snowsdeploy.settings.model import ModelSettings, read_axis
from snowsdeploy.stages.program import load_program
from snowsdeploy.values import DynamicAxis, InputInfo, Preprocessing, SourceInfo

SOURCE = SourceInfo(source="test", format="module")
IMAGE, META = InputInfo(name="image", shape=(3, 8, 8)), InputInfo(name="meta", shape=(4,))
RGB = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)


class Body(nn.Module):
    """An image and a vector."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear, self.head = nn.Conv2d(3, 8, 3), nn.Linear(4, 8), nn.Linear(16, 5)

    def both(self, image: Tensor, meta: Tensor) -> Tensor:
        return self.head(torch.cat([self.conv(image).relu().mean((2, 3)), self.linear(meta)], 1))


class ByName(Body):
    def forward(self, image: Tensor, meta: Tensor, scale: float = 1.0) -> Tensor:
        return self.both(image, meta) * scale


class KeywordOnly(Body):
    def forward(self, *, meta: Tensor, image: Tensor) -> Tensor:
        return self.both(image, meta)


class OneDict(Body):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.both(batch["image"], batch["meta"])


class Anything(Body):
    def forward(self, *inputs: Tensor) -> Tensor:
        return self.both(*inputs)


class OtherNames(Body):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.both(a, b)


@pytest.mark.parametrize("kind", [ByName, KeywordOnly, OneDict, Anything, OtherNames])
def test_every_way_to_call_a_model_gives_the_same_program(kind: type[Body], tmp_path: Path) -> None:
    module = kind().eval()
    program = trace(module, None, SOURCE, Wanted((IMAGE, META)))
    assert [i.name for i in program.inputs] == (["meta", "image"] if kind is KeywordOnly else ["image", "meta"])
    batch = random_batch(program.inputs, 5, 3)
    assert isinstance(batch, Inputs)
    expected = module.both(batch.tensors["image"], batch.tensors["meta"])
    torch.testing.assert_close(program.run(batch)[0], expected)
    program.save(tmp_path / "p.pt2")
    loaded = load_model(ModelRequest(str(tmp_path / "p.pt2")))
    assert loaded.signature == program.signature


class ImageAlone(Body):
    def forward(self, *, pixels: Tensor) -> Tensor:
        return self.conv(pixels)


class ImageSecond(Body):
    def forward(self, meta: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        assert image is not None
        return self.conv(image)


@pytest.mark.parametrize(("kind", "name"), [(ImageAlone, "anything"), (ImageSecond, "image")])
def test_a_single_input_that_is_not_the_first_by_position(kind: type[Body], name: str) -> None:
    module = kind().eval()
    info = InputInfo(name=name, shape=(3, 8, 8))
    program = trace(module, None, SOURCE, Wanted((info,)))
    images = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(program.run(images)[0], module.conv(images))


def test_names_that_are_not_forwards_are_refused_with_its_own() -> None:
    with pytest.raises(UsageError, match="not those of the model's forward") as caught:
        trace(ByName(), None, SOURCE, Wanted((IMAGE, META, *(InputInfo(name=n, shape=(2,)) for n in "pq"))))
    assert caught.value.allowed == "image, meta, scale"


@dataclasses.dataclass
class Result:
    """Not known to torch."""

    logits: Tensor
    boxes: Tensor
    extra: Tensor | None = None


Pair = namedtuple("Pair", ["logits", "boxes"])
NAMES: dict[str, tuple[Callable[[Tensor, Tensor], Any], tuple[str, ...]]] = {
    "tensor": (lambda a, b: a + b, ("output",)),
    "tuple": (lambda a, b: (a, b), ("output_0", "output_1")),
    "dict": (lambda a, b: {"logits": a, "boxes": b}, ("logits", "boxes")),
    "dict of lists": (lambda a, b: {"logits": a, "maps": [b, b * 2]}, ("logits", "maps_0", "maps_1")),
    "named tuple": (Pair, ("logits", "boxes")),
    "dataclass": (Result, ("logits", "boxes")),
    "dataclass in a tuple": (lambda a, b: (Result(a, b), a * 2), ("logits", "boxes", "output_2")),
    "None and numbers": (lambda a, b: {"logits": a, "loss": None, "count": 3, "boxes": b}, ("logits", "boxes")),
    "integers and truth values": (lambda a, b: {"best": a.argmax(1), "sure": b > 0}, ("best", "sure")),
}


class Ends(nn.Module):
    """Two heads in any form."""

    def __init__(self, end: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.end = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.a(x).mean((2, 3)), self.b(x).mean((2, 3)))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_called_by_their_keys(name: str) -> None:
    end, names = NAMES[name]
    program = trace(Ends(end), RGB, SOURCE)
    assert program.signature.outputs == names
    assert len(program.run(torch.randn(2, 3, 8, 8))) == len(names) == len(ProgramGraph(program).outputs)


def test_outputs_can_be_renamed_and_dropped_with_what_computes_them() -> None:
    end, _ = NAMES["dict"]
    whole = trace(Ends(end), RGB, SOURCE)
    renamed = trace(Ends(end), RGB, SOURCE, Wanted(output_names=("scores", "places")))
    assert renamed.signature.outputs == ("scores", "places")
    kept = trace(Ends(end), RGB, SOURCE, Wanted(output_names=("scores", "places"), outputs=("places",)))
    assert kept.signature.outputs == ("places",)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(kept.run(x)[0], whole.run(x)[1])
    turned = trace(Ends(end), RGB, SOURCE, Wanted(output_names=("scores", "places"), outputs=("places", "scores")))
    assert turned.signature.outputs == ("places", "scores")
    assert all(map(torch.equal, turned.run(x), reversed(whole.run(x))))
    with pytest.raises(UsageError, match="names an output twice"):
        trace(Ends(end), RGB, SOURCE, Wanted(outputs=("logits", "logits")))
    assert [layer.name for layer in ProgramGraph(kept).layers.values()] == ["b"]
    with pytest.raises(UsageError, match="--outputs names no output") as caught:
        trace(Ends(end), RGB, SOURCE, Wanted(outputs=("scores",)))
    assert caught.value.allowed == "logits, boxes"
    with pytest.raises(UsageError, match="--output-names does not fit"):
        trace(Ends(end), RGB, SOURCE, Wanted(output_names=("one",)))


class PerImage(nn.Module):
    """Reads the batch as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(192, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.linear(x[i].flatten()) for i in range(len(x))])


def test_a_fixed_batch_is_traced_where_it_is_asked_for() -> None:
    with pytest.raises(GraphError, match="cannot trace") as caught:
        trace(PerImage(), RGB, SOURCE)
    assert "--static-batch N" in str(caught.value.fix)
    program = trace(PerImage(), RGB, SOURCE, Wanted(batch=4))
    assert program.signature.batch == 4
    assert program.run(torch.randn(4, 3, 8, 8))[0].shape == (4, 8)


def axes(*texts: str) -> tuple[DynamicAxis, ...]:
    return tuple(DynamicAxis(input="input", axis=2 if t == "height" else 3, name=t) for t in texts)


def convolutional(pool: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(pool))


def test_axes_vary_and_the_solver_sees_one_size(tmp_path: Path) -> None:
    module = convolutional().eval()
    program = trace(module, RGB, SOURCE, Wanted(dynamic=axes("height", "width")))
    for size in ((8, 8), (5, 11)):
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(program.run(x)[0], module(x))
    image = ProgramGraph(program).inputs[0].meta["val"]
    assert tuple(image.shape[1:]) == (3, 8, 8)
    changed = program.with_weights({"0.weight": program.state_dict["0.weight"] * 2})
    module[0].weight.data *= 2  # type: ignore[operator, union-attr]
    torch.testing.assert_close(changed.run(torch.ones(2, 3, 5, 11))[0], module(torch.ones(2, 3, 5, 11)))
    changed.save(tmp_path / "p.pt2")
    again = load_model(ModelRequest(str(tmp_path / "p.pt2")))
    assert again.signature == program.signature
    assert not isinstance(again.model, nn.Module)
    loaded = adopt(again.model, again.preprocessing, SOURCE, Wanted(program.inputs, dynamic=program.signature.dynamic))
    assert loaded.signature == program.signature
    assert list(loaded.state_dict) == list(program.state_dict)
    torch.testing.assert_close(loaded.run(torch.ones(2, 3, 5, 11))[0], module(torch.ones(2, 3, 5, 11)))


def test_an_axis_that_the_model_fixes_is_refused() -> None:
    fixed = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 5))
    with pytest.raises(GraphError) as caught:
        trace(fixed, RGB, SOURCE, Wanted(dynamic=axes("height")))
    assert "cannot trace" in str(caught.value) or "fixes an axis" in str(caught.value)


def test_ranges_are_tried_at_their_ends() -> None:
    ends = DynamicAxis(input="input", axis=2, name="height", smallest=4, largest=20)
    program = trace(convolutional(), RGB, SOURCE, Wanted(dynamic=(ends,)))
    assert [inputs[0].shape for inputs in other_sizes(program)] == [(3, 4, 8), (3, 20, 8)]
    assert sized(program.inputs, program.signature.dynamic, "20x8")[0].shape == (3, 20, 8)
    for text in ("21x8", "20x9"):
        with pytest.raises(UsageError, match="--latency-size"):
            sized(program.inputs, program.signature.dynamic, text)


@pytest.mark.parametrize("text", ["depth", "height=9..2", "image:0", "height=0..4", "width:", "height=4"])
def test_axes_that_mean_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="height, width or NAME:AXIS"):
        read_axis(text)


def test_inputs_as_a_user_types_them() -> None:
    settings = ModelSettings.model_validate({"model": "m", "input": ["image=3,8,8", "ids=16:int64", "age="]})
    assert [str(i) for i in settings.inputs] == ["image 3x8x8", "ids 16 int64", "age one number"]
    for text in ("image=3,0,8", "image=a", "ids=16:int65"):
        with pytest.raises(ValueError, match="NAME=SHAPE"):
            ModelSettings.model_validate({"model": "m", "input": [text]})


def test_tokens_need_no_data_to_be_traced() -> None:
    program = load_program(ModelSettings(model="tests.models.test_signature:embedding", input={"ids": "6:int64"}))
    assert isinstance(program, Program)
    assert program.preprocessing is None
    assert program.signature.outputs == ("output",)


def embedding() -> nn.Module:
    """A factory."""
    return nn.Sequential(nn.Embedding(9, 8), nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3))


def test_other_sizes_are_run_in_double_precision_too() -> None:
    torch.manual_seed(0)
    module = convolutional()
    program = trace(module, RGB, SOURCE, Wanted(dynamic=axes("height")))
    images = torch.randn(2, 3, 13, 8)
    expected = deepcopy(module).double()(images.double())
    torch.testing.assert_close(run_in_fp64(program, images)[0], expected, rtol=1e-12, atol=1e-12)


def test_items_at_other_sizes_hold_the_same_values() -> None:
    batch = Inputs({"image": torch.arange(12.0).view(1, 1, 3, 4), "ids": torch.tensor([[5, 6]])})
    larger = resampled(batch, (InputInfo(name="image", shape=(1, 6, 2)), InputInfo(name="ids", shape=(3,))))
    assert isinstance(larger, Inputs)
    rows, columns = [0, 0, 1, 1, 2, 2], [0, 2]
    assert torch.equal(larger.tensors["image"], batch.tensors["image"][:, :, rows][..., columns])
    assert larger.tensors["ids"].tolist() == [[5, 5, 6]]
