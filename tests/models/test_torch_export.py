"""Where `forward` makes a number of a size: what tracing makes of it."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from snowsdeploy.errors import GraphError
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


class Loop(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.head(self.features(x[i : i + 1]).flatten(1)) for i in range(len(x))])


@pytest.mark.parametrize("kind", [Length, Arithmetic, WholeNumber])
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
