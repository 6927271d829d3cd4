"""Blocks of several branches are joined before anything is pruned, as the model itself does it."""

from __future__ import annotations

from copy import deepcopy

import pytest
import timm
import torch
from torch import Tensor, nn

from snowsdeploy.models.branches import join_branches
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.models.trace import trace
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.values import Preprocessing, SourceInfo

PREPROCESSING = Preprocessing(input_size=(3, 16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)
SOURCE = SourceInfo(source="test", format="factory")


class Branches(nn.Module):
    """A 3x3 and a 1x1 convolution, added."""

    def __init__(self) -> None:
        super().__init__()
        self.wide: nn.Conv2d | None = nn.Conv2d(8, 8, 3, padding=1)
        self.narrow: nn.Conv2d | None = nn.Conv2d(8, 8, 1)
        self.one: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.one is not None:
            return self.one(x).relu()
        assert self.wide is not None
        assert self.narrow is not None
        return (self.wide(x) + self.narrow(x)).relu()

    def join(self, scale: float = 1.0) -> nn.Conv2d:
        assert self.wide is not None
        assert self.narrow is not None
        made = deepcopy(self.wide)
        assert made.bias is not None
        assert self.narrow.bias is not None
        with torch.no_grad():
            made.weight[:, :, 1, 1] += scale * self.narrow.weight[:, :, 0, 0]
            made.bias += self.narrow.bias
        return made


class InPlace(Branches):
    def reparameterize(self) -> None:
        self.one, self.wide, self.narrow = self.join(), None, None


class Deployed(Branches):
    def switch_to_deploy(self) -> None:
        self.one, self.wide, self.narrow = self.join(), None, None


class Returned(Branches):
    """Without the activation, so that one convolution is all of it."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.wide is not None
        assert self.narrow is not None
        return self.wide(x) + self.narrow(x)

    def fuse(self) -> nn.Module:
        return self.join()


class Wrong(Branches):
    def reparameterize(self) -> None:
        self.one, self.wide, self.narrow = self.join(0.5), None, None


class Broken(Branches):
    def reparameterize(self) -> None:
        raise KeyError("conv")


def net(block: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(block(), block()), nn.Conv2d(8, 4, 1)).eval()


@pytest.mark.parametrize("block", [InPlace, Deployed, Returned])
def test_branches_are_joined_in_a_copy(block: type[nn.Module]) -> None:
    module = net(block)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = module(images)
    joined, words = join_branches(module, lambda each: [each(images)])
    assert words.startswith("2 blocks of several branches are joined")
    with torch.no_grad():
        torch.testing.assert_close(joined(images), expected, rtol=1e-4, atol=1e-5)
    assert sum(isinstance(m, nn.Conv2d) for m in joined.modules()) == 4
    assert module.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(("block", "why"), [(Wrong, "the outputs would change"), (Broken, "it raised KeyError")])
def test_what_cannot_be_joined_stays_and_is_told(block: type[nn.Module], why: str) -> None:
    module, images = net(block), torch.randn(2, 3, 16, 16)
    same, words = join_branches(module, lambda each: [each(images)])
    assert same is module
    assert words == f"blocks of several branches could not be joined, and each branch is pruned by itself: {why}"


def test_a_method_that_only_folds_norms_is_not_called() -> None:
    class Normed(nn.Sequential):
        def fuse(self) -> nn.Module:
            raise AssertionError

    class Whole(nn.Module):
        """As ultralytics' models have it: everything in place."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Normed(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x))

        def fuse(self) -> Whole:
            return self

    module = nn.Sequential(Whole())
    assert join_branches(module, lambda each: [each(torch.zeros(1, 3, 2, 2))]) == (module, "")


def test_each_layer_of_a_joined_model_is_pruned_once() -> None:
    torch.manual_seed(0)
    module = timm.create_model("repvgg_a0", num_classes=10).eval()
    program = trace(module, Preprocessing(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3), SOURCE)
    (remark,) = program.source.remarks
    assert remark.startswith("22 blocks")
    decisions = decide_layers(ProgramGraph(program), Pattern.parse("2:4"))
    assert len(decisions) == 23
    assert sum(d.prunable for d in decisions) == 21
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(program.run(images)[0], module(images), rtol=1e-3, atol=1e-4)
