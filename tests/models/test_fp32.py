"""Programs in half or double precision are cast, with all that their graphs say of types."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from snowsdeploy.models.adopt import adopt
from snowsdeploy.models.fp32 import in_fp32, in_fp64
from snowsdeploy.models.objects import adopt_object
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.values import Preprocessing

PREPROCESSING = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)


class Casts(nn.Module):
    """Makes constants and casts in its own precision."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.register_buffer("scale", torch.full((8,), 2.0))
        self.offset = torch.ones(4)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x).relu().mean((2, 3)) * self.scale
        shares = features.float().softmax(1).to(self.conv.weight.dtype)
        return self.head(shares) + torch.zeros(4, dtype=x.dtype) + self.offset.to(x.dtype)


def program(dtype: torch.dtype) -> ExportedProgram:
    images = torch.randn(2, 3, 8, 8).to(dtype)
    return torch.export.export(Casts().to(dtype).eval(), (images,), dynamic_shapes=({0: Dim("b", min=1)},))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("stored", [False, True])
def test_a_program_is_cast_and_says_so(dtype: torch.dtype, stored: bool, tmp_path: Path) -> None:
    exported = program(dtype)
    if stored:
        torch.export.save(exported, tmp_path / "p.pt2")
        loaded = load_model(ModelRequest(str(tmp_path / "p.pt2")))
    else:
        loaded = adopt_object(exported)
        assert {t.dtype for t in exported.state_dict.values()} == {dtype}  # the caller's own
    (remark,) = loaded.source.remarks
    assert remark.startswith(f"cast from {str(dtype).removeprefix('torch.')} to float32")
    assert isinstance(loaded.model, ExportedProgram)
    adopted = adopt(loaded.model, PREPROCESSING, loaded.source)
    assert adopted.inputs[0].dtype == "float32"
    assert {t.dtype for t in adopted.state_dict.values()} == {torch.float32}
    module = Casts().to(dtype).float().eval()
    images = torch.randn(5, 3, 8, 8)
    (found,) = adopted.run(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, module(images))


def test_a_program_in_fp32_is_itself() -> None:
    exported = program(torch.float32)
    assert in_fp32(exported) == (exported, "")


def test_a_program_in_fp64_computes_what_the_module_does_there() -> None:
    exported = program(torch.float32)
    wide = in_fp64(exported)
    images = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    found = wide.module(check_guards=False)(images)
    assert found.dtype == torch.float64
    module = Casts().double().eval()
    module.forward = Casts64.forward.__get__(module)  # type: ignore[method-assign]  # its casts to FP32 are to FP64 there
    torch.testing.assert_close(found, module(images), rtol=1e-12, atol=1e-12)
    assert {t.dtype for t in exported.state_dict.values()} == {torch.float32}


class Casts64(Casts):
    """The same without a cast to FP32."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x).relu().mean((2, 3)) * self.scale
        return self.head(features.softmax(1)) + torch.zeros(4, dtype=x.dtype) + self.offset.to(x.dtype)
