"""What is no module that can be traced is refused with its cause, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snowsdeploy
from snowsdeploy.errors import GraphError, SnowsDeployError, SourceError
from snowsdeploy.models.factory import call_factory

IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def make() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def exported_module() -> nn.Module:
    batch = ({0: torch.export.Dim("batch")},)
    module: nn.Module = torch.export.export(make().eval(), (IMAGES[:2],), dynamic_shapes=batch).module()
    return module


def sparse() -> nn.Module:
    module = nn.Linear(4, 4)
    module.weight = nn.Parameter(module.weight.detach().to_sparse_csr(), requires_grad=False)
    return module


class Net(nn.Module):
    """Runs a function of its own beside a convolution."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor], **children: nn.Module) -> None:
        super().__init__()
        self.net, self.function = make(), function
        self.register_buffer("calls", torch.zeros(1))
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.function(self, x))  # type: ignore[no-any-return]


def counted(module: nn.Module, x: Tensor) -> Tensor:
    module.calls += 1  # type: ignore[operator]  # a buffer
    return x


def changed(_: nn.Module, x: Tensor) -> Tensor:
    x -= 0.5
    return x


BAD: dict[str, tuple[Callable[[], nn.Module], type[SnowsDeployError], str, str]] = {
    "scripted": (lambda: torch.jit.trace(make(), IMAGES[:2]), SourceError, "TorchScript", "Module"),
    "of an exported program": (exported_module, SourceError, "exported program", "GraphModule"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), SourceError, "lazy layer", "0.weight"),
    "without values": (lambda: make().to("meta"), SourceError, "meta device", "0.weight"),
    "sparse": (sparse, SourceError, "stored sparse", "sparse_csr"),
    "counts its calls": (lambda: Net(counted), GraphError, "changes what it is given", "the buffer calls"),
    "changes its input": (lambda: Net(changed), GraphError, "changes what it is given", "its input"),
    "random": (lambda: Net(lambda _, x: F.dropout(x, 0.5)), GraphError, "when it runs again", "test_usable.py:"),
    "over the batch": (
        lambda: Net(lambda _, x: x - x.mean(0, keepdim=True)),
        GraphError,
        "depends on the other images",
        "its output",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", BAD)
def test_a_model_that_cannot_be_pruned_is_refused_with_its_cause(case: str) -> None:
    model, kind, what, seen = BAD[case]
    with pytest.raises(kind, match=what) as caught:
        snowsdeploy.prune(model(), data=IMAGES, effort="fast", progress=False)
    assert seen in str(caught.value.seen)
    assert caught.value.fix


def leave() -> nn.Module:
    raise SystemExit(0)


def test_a_factory_that_ends_the_process_is_refused() -> None:
    with pytest.raises(SourceError, match="ends the program"):
        call_factory("tests.models.test_usable:leave", {}, option="MODEL")
