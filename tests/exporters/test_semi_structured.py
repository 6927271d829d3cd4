"""Which layers get sparse kernels, and that the graph then runs on them; the conversion itself needs a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from snowsdeploy.errors import ProviderError, SourceError, UsageError
from snowsdeploy_exporters import semi_structured
from snowsdeploy_exporters.formats.pytorch import write_torch
from snowsdeploy_exporters.semi_structured import CONVERTED, load_semi_structured, refusal
from tests.exporters.contents import images_of, make_contents
from tests.nets import make_program


class Mixed(nn.Module):
    """A convolution, and linears of sizes that the kernels take and do not take, on 3-D input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.wide, self.narrow = nn.Linear(16, 32), nn.Linear(32, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.stem(x)).flatten(2).transpose(1, 2)
        return self.head(self.narrow(torch.relu(self.wide(x))).mean(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    run = tmp_path_factory.mktemp("run")
    folder = run / "torch"
    folder.mkdir()
    write_torch(make_contents(make_program(Mixed()), run), folder)
    return folder


def pairs(*shape: int) -> Tensor:
    """A weight that holds 2:4."""
    return torch.ones(shape, dtype=torch.float16) * torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float16).repeat(
        shape[-1] // 4
    )


@pytest.mark.parametrize(
    ("weight", "kind", "reason"),
    [
        (pairs(32, 16), "linear", ""),
        (pairs(32, 16).bfloat16(), "linear", ""),
        (pairs(32, 16).float(), "linear", "float32: needs float16 or bfloat16"),
        (pairs(24, 16), "linear", "24x16: both must be multiples of 16"),
        (pairs(16, 8), "linear", "16x8: both must be multiples of 16"),
        (pairs(16, 16, 1, 1), "conv", "a convolution"),
        (pairs(16, 16), "conv", "a convolution"),
        (pairs(32, 16).T, "linear", "not contiguous"),
        (torch.ones(16, 16, dtype=torch.float16), "linear", "does not hold 2:4"),
    ],
)
def test_what_the_kernels_take(weight: Tensor, kind: str, reason: str) -> None:
    found = refusal(weight, kind)
    assert reason in found
    assert bool(found) is bool(reason)


class Marked(Tensor):
    """A wrapper like PyTorch's sparse tensors: it is asked for the product, and holds the weight inside."""

    inner: Tensor
    products: list[str]

    @staticmethod
    def __new__(cls, inner: Tensor, products: list[str]) -> Marked:
        return Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)

    def __init__(self, inner: Tensor, products: list[str]) -> None:
        self.inner, self.products = inner, products

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        (self,) = (a for a in args if isinstance(a, Marked))
        if function is torch.ops.aten.detach.default:
            return Marked(self.inner, self.products)
        self.products.append(str(function))
        return function(*(a.inner if isinstance(a, Marked) else a for a in args), **(kwargs or {}))


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this device had sparse kernels."""
    monkeypatch.setattr(semi_structured, "_hardware", lambda device: "")


@pytest.mark.usefixtures("able")
def test_the_graph_multiplies_by_the_converted_weights_alone(folder: Path) -> None:
    products: list[str] = []
    dense = load_semi_structured(folder, "cpu", torch.bfloat16, convert=lambda weight: weight)
    loaded = load_semi_structured(folder, "cpu", torch.bfloat16, convert=lambda weight: Marked(weight, products))
    assert loaded.layers == {
        "conv": "a convolution: PyTorch has 2:4 kernels for linear layers only",
        "wide": CONVERTED,
        "narrow": "24x32: both must be multiples of 16",
    }
    images = images_of(make_program(Mixed()), 3)[0].bfloat16()
    with torch.inference_mode():
        assert torch.equal(loaded.model(images), dense.model(images))
    assert products == ["aten.linear.default"]


def test_on_the_cpu_everything_stays_dense_and_says_so(folder: Path) -> None:
    def refuse(weight: Tensor) -> Tensor:
        raise AssertionError("nothing is to be converted")

    loaded = load_semi_structured(folder, "cpu", torch.float32, convert=refuse)
    assert set(loaded.layers) == {"conv", "wide", "narrow"}
    assert all("CPU" in reason for reason in loaded.layers.values())
    with torch.inference_mode():
        assert loaded.model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize(("capability", "word"), [((7, 5), "7.5"), ((8, 0), ""), ((9, 0), "")])
def test_sparse_kernels_need_ampere(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], word: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    reason = semi_structured._hardware(torch.device("cuda"))
    assert word in reason
    assert bool(reason) is bool(word)


def test_without_a_gpu_it_refuses_and_names_the_way_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ProviderError, match="need an NVIDIA GPU") as caught:
        load_semi_structured(folder)
    assert 'device="cpu"' in str(caught.value)
    with pytest.raises(UsageError, match="need an NVIDIA GPU"):
        load_semi_structured(folder, "mps")


def remove(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def damage(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"x")


@pytest.mark.parametrize("spoil", [remove, damage])
def test_another_folder_is_an_error(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    (tmp_path / "model.safetensors").touch()
    spoil(tmp_path)
    with pytest.raises(SourceError, match="does not hold a model in the torch format"):
        load_semi_structured(tmp_path, "cpu")
