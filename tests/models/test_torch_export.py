"""Where `forward` makes a number of a size: what tracing makes of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from snowsdeploy.errors import GraphError
from snowsdeploy.models.adopt import Wanted, adopt
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.models.trace import trace
from snowsdeploy.values import Preprocessing, SourceInfo

PREPROCESSING = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)
SOURCE = SourceInfo(source="test", format="factory")


class Pooled(nn.Module):
    """A net whose subclasses flatten in ways of their own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(32, 5)

    def features(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(self.norm(self.conv(x)).relu(), 2)


class Length(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).reshape(len(x), 32))


class Arithmetic(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        pooled = self.features(x)
        return self.head(pooled.reshape(len(x), pooled.numel() // len(x)))


class WholeNumber(Pooled):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"scores": self.head(self.features(x).view(int(x.shape[0]), -1))}


class Constant(Pooled):
    """Strict tracing keeps the constant by its place in the code that it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = torch.arange(5.0)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.features(x).reshape(len(x), 32)
        return self.head(pooled) + self.offset + torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])


class Loop(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.head(self.features(x[i : i + 1]).flatten(1)) for i in range(len(x))])


@pytest.mark.parametrize("kind", [Length, Arithmetic, WholeNumber, Constant])
def test_a_batch_that_is_read_as_a_number_stays_free(kind: type[Pooled]) -> None:
    module = kind().eval()
    program = trace(module, PREPROCESSING, SOURCE)
    assert program.signature.batch is None
    assert set(program.state_dict) == set(module.state_dict())
    assert "forward" not in vars(module)
    for batch in (1, 2, 7):
        images = torch.randn(batch, 3, 8, 8)
        with torch.no_grad():
            expected = module(images)
        expected = expected["scores"] if isinstance(expected, dict) else expected
        torch.testing.assert_close(program.run(images)[0], expected)
    if kind is WholeNumber:
        assert program.signature.outputs == ("scores",)


def test_strict_tracing_is_for_sizes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, modes = torch.export.export, list[bool]()

    def export(*args: object, strict: bool, **options: object) -> object:
        modes.append(strict)
        return plain(*args, strict=strict, **options)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(torch.export, "export", export)
    trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten()), PREPROCESSING, SOURCE)
    assert modes == [False]
    modes.clear()
    trace(Length(), PREPROCESSING, SOURCE)
    assert modes == [False, True]


def test_where_both_ways_fail_the_first_one_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GraphError, match="cannot trace") as caught:
        trace(Loop(), PREPROCESSING, SOURCE)
    assert re.match(
        r"You marked batch as dynamic but .* constant \(2\) \(at .*test_torch_export", caught.value.seen or ""
    )
    assert "--static-batch" in (caught.value.fix or "")
    assert capfd.readouterr() == ("", "")


class OwnNames(nn.Module):
    """`code` and `graph` are attributes of every graph module."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.graph, self.code = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, pixels: Tensor, scale: float = 2.0) -> Tensor:
        return self.code(self.graph(pixels).relu().mean((2, 3))) * scale


def test_submodules_may_have_names_that_graphs_have() -> None:
    module = OwnNames().eval()
    program = trace(module, PREPROCESSING, SOURCE)
    assert set(program.state_dict) == {f"model.{name}" for name in module.state_dict()}
    assert program.source.remarks == ("names of weights begin with model.: torch.export needs graph, code itself",)
    images = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(program.run(images)[0], module(images))
    assert set(ProgramGraph(program).layers) == {"model.graph.weight", "model.code.weight"}


class Squeezed(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).reshape(x.shape[0], 1, 32).squeeze())


def test_a_squeeze_that_takes_the_batch_is_named_with_its_line() -> None:
    with pytest.raises(GraphError, match="loses the batch axis of a single item") as caught:
        trace(Squeezed(), PREPROCESSING, SOURCE)
    assert re.search(r"squeeze\(\) without an axis at .*test_torch_export.py:\d+", str(caught.value.seen))
    fixed = trace(Squeezed(), PREPROCESSING, SOURCE, Wanted(batch=2))
    assert fixed.signature.batch == 2


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down, self.up = nn.Conv2d(3, 8, 2, stride=2), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        small = self.up(self.down(x).relu())
        return nn.functional.interpolate(small, scale_factor=2.0)


def test_a_program_of_multiples_is_recorded_again(tmp_path: Path) -> None:
    sizes = {0: Dim("b", min=1), 2: 2 * Dim("h2", min=2, max=64), 3: 2 * Dim("w2", min=2, max=64)}
    module = Doubled().eval()
    torch.export.save(
        torch.export.export(module, (torch.randn(2, 3, 8, 8),), dynamic_shapes=(sizes,)), tmp_path / "p.pt2"
    )
    loaded = load_model(ModelRequest(str(tmp_path / "p.pt2")))
    assert isinstance(loaded.model, ExportedProgram)
    program = adopt(loaded.model, PREPROCESSING, loaded.source)
    assert [axis.name for axis in program.signature.dynamic] == ["height", "width"]
    assert program.inputs[0].shape == (3, 8, 8)
    for size in ((5, 3, 8, 8), (1, 3, 12, 20)):
        images = torch.randn(size)
        torch.testing.assert_close(program.run(images)[0], module(images))


class Pair(NamedTuple):
    scores: Tensor
    boxes: Tensor


class GivesPair(Pooled):
    def forward(self, x: Tensor) -> Pair:
        scores = self.head(self.features(x).flatten(1))
        return Pair(scores, scores[:, :4])


def test_named_tuples_are_saved_without_their_class(tmp_path: Path) -> None:
    program = trace(GivesPair(), PREPROCESSING, SOURCE)
    assert program.signature.outputs == ("scores", "boxes")
    program.save(tmp_path / "p.pt2")
    again = load_model(ModelRequest(str(tmp_path / "p.pt2")))
    assert again.signature == program.signature


class Complex(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(self.head(self.features(x).flatten(1)))


def test_a_complex_output_is_named() -> None:
    with pytest.raises(GraphError, match="an output is complex"):
        trace(Complex(), PREPROCESSING, SOURCE)


class Wrapper(nn.Module):
    """As a library's object that predicts: its own forward is not the model's."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Length()

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.net(x).numpy())


class NeedsTwo(Pooled):
    def forward(self, x: Tensor, meta: Tensor | None = None, *, targets: Tensor | None = None) -> Tensor:
        return self.head(self.features(x).flatten(1)) + meta.sum()  # type: ignore[union-attr]  # what goes wrong


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        (Wrapper, "it may be a wrapper: pass its part net, Length, alone"),
        (NeedsTwo, "its forward takes x, meta, targets: name each with --input NAME=SHAPE"),
    ],
)
def test_what_else_a_failed_trace_may_be(kind: type[nn.Module], hint: str) -> None:
    with pytest.raises(GraphError, match="cannot trace") as caught:
        trace(kind(), PREPROCESSING, SOURCE)
    assert hint in str(caught.value.fix)
