"""Tracing, and programs with other weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from snowsdeploy.errors import GraphError, NumericsError
from snowsdeploy.models.adopt import adopt
from snowsdeploy.models.program import Program
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.models.trace import trace
from snowsdeploy.values import Preprocessing, SourceInfo
from tests.nets import NETS, make_program

PREPROCESSING = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)
SOURCE = SourceInfo(source="test", format="factory")


@pytest.mark.parametrize("name", NETS)
def test_a_program_computes_what_the_module_computes_at_any_batch_size(name: str) -> None:
    torch.manual_seed(0)
    module = NETS[name]()
    program = make_program(module)
    for batch in (1, 5):
        images = torch.randn(batch, 3, 8, 8)
        with torch.no_grad():
            torch.testing.assert_close(program.run(images)[0], module.eval()(images))


def test_new_weights_leave_the_old_program_alone(tiny_cnn: Program) -> None:
    images = torch.randn(2, 3, 8, 8)
    before = tiny_cnn.run(images)[0]
    changed = tiny_cnn.with_weights({"strided.weight": torch.zeros(12, 8, 1, 3)})
    assert not torch.equal(changed.run(images)[0], before)
    assert torch.equal(tiny_cnn.run(images)[0], before)


@pytest.mark.parametrize(("name", "shape"), [("nowhere.weight", (1,)), ("strided.weight", (1, 2))])
def test_weights_that_do_not_fit_are_refused(tiny_cnn: Program, name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(GraphError, match=name):
        tiny_cnn.with_weights({name: torch.zeros(shape)})


def test_a_saved_program_comes_back_with_its_preprocessing(tiny_cnn: Program, tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    tiny_cnn.save(path)
    loaded = load_model(ModelRequest(str(path)))
    assert loaded.preprocessing == tiny_cnn.preprocessing
    assert not isinstance(loaded.model, nn.Module)
    images = torch.randn(3, 3, 8, 8)
    again = adopt(loaded.model, PREPROCESSING, loaded.source)
    torch.testing.assert_close(again.run(images)[0], tiny_cnn.run(images)[0])
    assert [p.name for p in tmp_path.iterdir()] == ["program.pt2"]


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1)


class Overflowing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 1e30).exp().mean((2, 3))


@pytest.mark.parametrize("module", [Branching(), FixedBatch()])
def test_a_model_that_cannot_be_traced_says_where_and_what_to_try(module: nn.Module) -> None:
    with pytest.raises(GraphError) as caught:
        trace(module, PREPROCESSING, SOURCE)
    assert caught.value.fix
    assert caught.value.seen


def test_outputs_that_are_not_finite_are_refused() -> None:
    with pytest.raises(NumericsError, match="NaN or Inf"):
        trace(Overflowing(), PREPROCESSING, SOURCE)


def test_a_fixed_batch_is_kept_and_said() -> None:
    exported = torch.export.export(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), (torch.randn(2, 3, 8, 8),))
    program = adopt(exported, PREPROCESSING, SOURCE)
    assert program.signature.batch == 2
    assert "2 items at once and no other number" in str(program.signature)
    assert program.run(torch.randn(2, 3, 8, 8))[0].shape == (2, 4)


def test_a_model_whose_input_is_called_like_a_builtin_can_be_moved() -> None:
    program = trace(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), PREPROCESSING, SOURCE)
    assert program.exported.graph_signature.user_inputs == ("input",)
    moved = program.on(torch.device("meta"))
    assert all(tensor.device.type == "meta" for tensor in moved.state_dict.values())
    assert [n.name for n in moved.exported.graph.nodes] == [n.name for n in program.exported.graph.nodes]
