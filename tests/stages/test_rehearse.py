"""What would fail at the end of a run fails before anything is solved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from timm.layers import CondConv2d
from torch import Tensor, nn

from snowsdeploy.errors import ExportError, ProviderError, SnowsDeployError, UsageError
from snowsdeploy.models.program import Program
from snowsdeploy.progress import NullObserver
from snowsdeploy.report.store import read_report
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages import dense_file, validate
from snowsdeploy.stages.job import run_main_job
from snowsdeploy.stages.later import run_validate
from snowsdeploy.values import OnnxArtifact, Role
from snowsdeploy_exporters import OnnxExporter

HERE = "tests.stages.test_rehearse"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.body(x)).mean((2, 3)))


class Spectrum(Net):
    def middle(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x)
        return torch.fft.irfft2(spectrum * torch.exp(torch.tensor(1j)))


class Pooled(Net):
    def middle(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_max_pool2d(x, 5)


class Windows(Net):  # attention over three axes
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Parameter(torch.randn(16, 8))

    def middle(self, x: Tensor) -> Tensor:
        tokens = nn.functional.linear(x.flatten(2).mT, self.both[:8])  # a weight that is folded
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mT.unsqueeze(3)


@pytest.fixture(autouse=True)
def rehearsal() -> None:
    """As it is."""


@dataclass
class Told(NullObserver):
    stages: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def stage(self, name: str, detail: str = "") -> None:
        self.stages.append(name)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def run(
    folder: Path, model: str, exporter: OnnxExporter, observer: Told, size: tuple[int, ...] = (3, 16, 16), **more: Any
) -> None:
    images = np.random.default_rng(0).standard_normal((8, *size)).astype(np.float32)
    np.savez(folder / "data.npz", x=images)
    given = {"model": f"{HERE}:{model}", "data": str(folder / "data.npz"), "out": folder / "run"}
    given |= {"mean": (0.5,) * size[0], "std": (0.5,) * size[0], "effort": "fast", "latency_runs": 5}
    run_main_job(read_settings(MainJob, given | {"latency_batch": (1,)} | more), exporter, observer=observer)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("Spectrum", ["complex numbers", "test_rehearse.py:"]),
        ("Pooled", ["adaptive_max_pool2d", "test_rehearse.py:"]),
    ],
)
def test_an_operator_that_the_file_cannot_hold_is_named_at_the_start(
    model: str, names: list[str], tmp_path: Path
) -> None:
    told = Told()
    with pytest.raises(SnowsDeployError) as caught:
        run(tmp_path, model, OnnxExporter(), told)
    assert told.stages == ["load"]
    assert not (tmp_path / "run").exists()
    for name in names:
        assert name in str(caught.value)


def test_an_operator_that_torch_onnx_lacks_is_written_as_simpler_ones(tmp_path: Path) -> None:
    run(tmp_path, "Windows", OnnxExporter(), Told())
    report = read_report(tmp_path / "run" / "report.json")
    (variant,) = report.variants
    assert variant.parity is not None
    assert variant.parity.worst_relative_l2 < 1e-5
    assert variant.sparsity is not None
    assert variant.sparsity.expected == ("body.2", "both_0")


def test_layers_to_keep_that_are_not_there_are_told_at_the_start(tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(UsageError, match="names no layer"):
        run(tmp_path, "Net", OnnxExporter(keep_fp32=("nothing",)), told)
    assert told.stages == ["load"]


class Inexact(OnnxExporter):
    """Writes another weight into dense files."""

    def export(self, program: Program, path: Path, role: Role, metadata: Mapping[str, str]) -> OnnxArtifact:
        made = super().export(program, path, role, metadata)
        model = onnx.load(path)
        bias = next(i for i in model.graph.initializer if i.name == "head.bias")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
        onnx.save(model, path)
        return made.model_copy(update={"sha256": sha256(path.read_bytes()).hexdigest()})


class OnlyAtStart(Exception):
    pass


class Once(OnnxExporter):
    def export(self, program: Program, path: Path, role: Role, metadata: Mapping[str, str]) -> OnnxArtifact:
        raise OnlyAtStart


def test_a_dense_file_that_differs_is_told(tmp_path: Path) -> None:
    told = Told()
    run(tmp_path, "Net", Inexact(), told)
    assert told.warnings[0].startswith("the dense model itself differs between PyTorch and ONNX Runtime by ")


def test_the_dense_model_is_written_first_and_not_again_by_a_resumed_run(tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(OnlyAtStart):
        run(tmp_path, "Net", Once(), told)
    assert told.stages == ["load"]
    run(tmp_path, "Net", OnnxExporter(), Told())
    told = Told()
    with pytest.raises(OnlyAtStart):
        run(tmp_path, "Net", Once(), told, resume=True)
    assert "export" in told.stages


def test_a_model_that_can_be_written_is_not_spoken_of(tmp_path: Path) -> None:
    told = Told()
    run(tmp_path, "Net", OnnxExporter(), told)
    assert not told.warnings or "differs" not in " ".join(told.warnings)


def crashes(*ends: str) -> Any:
    return lambda files, _: {f: "segmentation fault" for f in files if f.name.endswith(ends)}


def test_a_precision_that_ends_onnx_runtime_fails_and_the_others_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "native_crashes", crashes("model.fp16.onnx"))
    told = Told()
    run(tmp_path, "Net", OnnxExporter(), told, precision=("fp32", "fp16"))
    assert "fp16: ONNX Runtime on cpu ends with a segmentation fault" in told.warnings
    report = read_report(tmp_path / "run" / "report.json")
    whole, broken = report.variants
    assert whole.parity is not None
    assert whole.latency is not None
    assert (broken.crash, broken.parity, broken.latency) == ("segmentation fault", None, None)
    assert broken.sparsity is not None
    assert report.verdict is not None
    rules = {rule.rule: rule.verdict for rule in report.verdict.rules}
    assert report.verdict.verdict == "fail"
    assert rules["runs, fp16"] == "fail"
    assert rules["parity, fp32"] == "pass"
    assert rules["layout, fp16"] == "pass"
    for name in ("summary.md", "report.html"):
        assert "segmentation fault" in (tmp_path / "run" / name).read_text()
    policy = GatePolicy(min_coverage=None)
    kept = run_validate(tmp_path / "run", {}, policy=policy).variants[1]
    assert kept == broken


def test_a_dense_model_that_ends_onnx_runtime_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense_file, "native_crashes", crashes("dense.onnx"))
    told = Told()
    with pytest.raises(ProviderError, match="segmentation fault"):
        run(tmp_path, "Net", OnnxExporter(), told)
    assert told.stages == ["load"]


class Nameless(OnnxExporter):
    """Loses the names of layers."""

    def export(self, program: Program, path: Path, role: Role, metadata: Mapping[str, str]) -> OnnxArtifact:
        made = super().export(program, path, role, metadata)
        model = onnx.load(path)
        del model.metadata_props[:]
        for number, tensor in enumerate(model.graph.initializer):
            for node in model.graph.node:
                node.input[:] = [f"w{number}" if name == tensor.name else name for name in node.input]
            tensor.name = f"w{number}"
        onnx.save(model, path)
        return made


def test_layers_that_the_file_does_not_hold_are_told_at_the_start(tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(ExportError, match="does not multiply by every layer"):
        run(tmp_path, "Net", Nameless(), told)
    assert told.stages == ["load"]


class Conditional(Net):
    """The batch becomes the groups of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.experts, self.route = CondConv2d(8, 8, 3, num_experts=2), nn.Linear(8, 2)

    def middle(self, x: Tensor) -> Tensor:
        return self.experts(x, self.route(x.mean((2, 3))).sigmoid())


def test_a_batch_that_the_file_would_fix_is_told_at_the_start_and_may_be_meant(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="fixes an axis") as caught:
        run(tmp_path, "Conditional", OnnxExporter(), Told())
    assert caught.value.seen == "axis 0 of input at 2"
    assert "--static-batch" in str(caught.value.fix)
    run(tmp_path, "Conditional", OnnxExporter(), Told(), static_batch=2)
    assert read_report(tmp_path / "run" / "report.json").signature.batch == 2
