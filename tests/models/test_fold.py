"""Weights that are computed from constants become parameters, with the same outputs and names that a reader knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

from snowsdeploy.models.adopt import Wanted, adopt
from snowsdeploy.models.fold import fold_weights
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.models.trace import trace
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.values import Preprocessing, SourceInfo
from tests.nets import NETS, make_program

SOURCE = SourceInfo(source="test", format="module")
RGB = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)


class Standardised(nn.Conv2d):
    """As in networks without batch normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, (self.weight - mean) / (std + 1e-5), self.bias, padding=1)


class Constant(nn.Module):
    """A weight that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = torch.randn(8, 8, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.blur, padding=1)


class Packed(nn.Module):
    """One tensor for three projections, and one that is used whole and in part."""

    def __init__(self) -> None:
        super().__init__()
        self.packed, self.tied = nn.Parameter(torch.randn(24, 8)), nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        q, k, v = (nn.functional.linear(x, w) for w in self.packed.chunk(3))
        y = (q @ k.transpose(1, 2)).softmax(-1) @ v
        y = nn.functional.linear(nn.functional.linear(y, self.tied), self.tied.t())
        return y.transpose(1, 2).unflatten(2, (8, 8))


def spectral() -> nn.Module:
    layer = parametrizations.spectral_norm(nn.Conv2d(8, 8, 3, padding=1))
    layer(torch.randn(1, 8, 8, 8))
    return layer


def old_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning):
        return weight_norm(nn.Conv2d(8, 8, 3, padding=1))


KINDS = {
    "weight norm": (lambda: parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1)), ["1.weight"]),
    "old weight norm": (old_weight_norm, ["1.weight"]),
    "spectral norm": (spectral, ["1.weight"]),
    "standardised": (lambda: Standardised(8, 8, 3), ["1.weight"]),
    "constant": (Constant, ["1.blur"]),
    "packed": (Packed, ["1.packed_0", "1.packed_1", "1.packed_2", "1.tied", "1.tied_0"]),
}


def whole(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), KINDS[kind][0](), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5)
    ).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_computed_weight_is_a_parameter_with_its_own_name(kind: str, tmp_path: Path) -> None:
    module = whole(kind)
    program = trace(module, RGB, SOURCE)
    graph = ProgramGraph(program)
    assert [n for n in graph.layers if n.startswith("1.")] == KINDS[kind][1]
    assert not graph.unnamed_calls
    assert not [name for name in program.state_dict if "parametrizations" in name or name.endswith(("_g", "_v"))]
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(program.run(x)[0], module(x), rtol=1e-5, atol=1e-5)
    pruned = {d.weight for d in decide_layers(graph, Pattern(2, 4)) if d.prunable}
    assert pruned >= set(KINDS[kind][1])
    changed = program.with_weights({name: program.state_dict[name] * 0 for name in KINDS[kind][1]})
    assert not torch.allclose(changed.run(x)[0], program.run(x)[0])
    changed.save(tmp_path / "p.pt2")
    loaded = load_model(ModelRequest(str(tmp_path / "p.pt2")))
    assert not isinstance(loaded.model, nn.Module)
    again = adopt(loaded.model, RGB, SOURCE, Wanted(program.inputs))
    assert list(again.state_dict) == list(program.state_dict)
    assert torch.equal(again.run(x)[0], changed.run(x)[0])


@pytest.mark.parametrize("net", NETS)
def test_a_program_without_computed_weights_is_the_same_object(net: str) -> None:
    exported = make_program(NETS[net]()).exported
    assert fold_weights(exported) is exported


def test_a_weight_that_depends_on_the_input_is_not_folded() -> None:
    class Dynamic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 192))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x.flatten(1), self.weight * x.mean())

    module = Dynamic().eval()
    exported = torch.export.export(module, (torch.randn(2, 3, 8, 8),)).run_decompositions({})
    assert fold_weights(exported) is exported
