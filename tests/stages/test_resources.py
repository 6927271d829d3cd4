"""Memory that runs out, devices, and what a run was predicted to cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from snowsdeploy.device import OnDevice, choose_device, matmul_tf32, out_of_memory
from snowsdeploy.errors import ResourceError, UsageError
from snowsdeploy.models.program import Program
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.prune import Plan, prune_program
from snowsdeploy.pruning.solve.objective import WindowObjective
from snowsdeploy.pruning.solve.reconstruct import Reconstruction
from snowsdeploy.pruning.solve.streams import WindowSamples
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.read import read_settings
from snowsdeploy.solver.newton import NewtonCG
from snowsdeploy.stages.job import run_plan, run_prune
from snowsdeploy.values import PruneReport
from tests.nets import NETS, make_program

NET = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(torch.relu(self.conv1(x)))


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), Block(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
"""
OUT_OF_MEMORY = ("CUDA out of memory. Tried to allocate 20.00 GiB", "DefaultCPUAllocator: can't allocate memory")


class Warnings(NullObserver):
    """Keeps what a user would read."""

    def __init__(self) -> None:
        self.warned, self.details = list[str](), list[str]()

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def advance(self, done: int, total: int, detail: str = "") -> None:
        self.details.append(detail)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., MainJob]:
    """Of a run in a user's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net_for_resources.py").write_text(NET)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x=pixels)
    given = {
        "model": "net_for_resources:build",
        "data": "images.npz",
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
        "batch_size": 16,
        "solve_layers": 1,
        "out": tmp_path / "run",
    }
    return lambda **more: read_settings(MainJob, given | more)


def fails_above(monkeypatch: pytest.MonkeyPatch, images: int, error: Exception, after: int = 0) -> None:
    """A solve's gradients of more images at once fail, after so many that do not."""
    plain, calls = WindowObjective.value_and_gradient, 0

    def limited(self: WindowObjective, x: Tensor) -> tuple[float, Tensor]:
        nonlocal calls
        calls += isinstance(self.samples, WindowSamples)  # and not while memory is planned
        if calls > after and any(len(sample.targets[0]) > images for sample in self.samples):
            raise error
        return plain(self, x)

    monkeypatch.setattr(WindowObjective, "value_and_gradient", limited)


@pytest.mark.parametrize("text", OUT_OF_MEMORY)
def test_memory_that_runs_out_is_answered_by_fewer_images_at_once(
    settings: Callable[..., MainJob], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    error = torch.OutOfMemoryError(text) if "CUDA" in text else RuntimeError(text)
    fails_above(monkeypatch, 4, error, after=1)
    observer = Warnings()
    report = run_prune(settings(), observer=observer).report
    assert observer.warned == [
        "memory ran out with 16 images at once: going on with 8",
        "memory ran out with 8 images at once: going on with 4",
    ]
    assert report.memory is not None
    assert (report.memory.planned_batch, report.memory.batch_size) == (16, 4)
    assert "4 images at once, 16 before memory ran out" in str(report.memory)
    assert report.solver["batch_size"] == 4
    assert [", restored" in d for d in observer.details if d.startswith("1.conv1")] == [False, True, True]


def test_memory_that_is_not_enough_for_one_image_is_said(
    settings: Callable[..., MainJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_above(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(ResourceError, match="memory ran out") as caught:
        run_prune(settings(batch_size=2))
    assert caught.value.seen == "1 image at once on cpu; CUDA out of memory"


def test_of_several_processes_one_that_has_too_little_memory_says_how_to_go_on(
    settings: Callable[..., MainJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_above(monkeypatch, 8, torch.OutOfMemoryError("CUDA out of memory"))
    with monkeypatch.context() as several:
        several.setattr("snowsdeploy.pruning.memory.world", lambda: 2)
        with pytest.raises(ResourceError, match="in one of several processes") as caught:
            run_prune(settings())
    assert caught.value.fix is not None
    assert "--max-restarts=3" in caught.value.fix
    report = run_prune(settings(resume=True)).report
    assert report.memory is not None
    assert (report.memory.planned_batch, report.memory.batch_size) == (16, 8)


def test_other_errors_are_not_taken_for_memory(
    settings: Callable[..., MainJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_above(monkeypatch, 0, RuntimeError("expected scalar type Float"))
    with pytest.raises(RuntimeError, match="expected scalar type"):
        run_prune(settings())
    assert not out_of_memory(RuntimeError("expected scalar type Float"))
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))


def test_a_small_budget_gives_the_same_weights_from_disk(settings: Callable[..., MainJob], tmp_path: Path) -> None:
    plain = run_prune(settings()).report
    other = run_prune(settings(out=tmp_path / "disk", activations="disk")).report
    assert other.memory is not None
    assert other.memory.storage == "disk"
    assert not (tmp_path / "disk" / "activations").exists()
    first, second = ((tmp_path / name / "pruned.safetensors").read_bytes() for name in ("run", "disk"))
    assert first == second
    assert plain.memory is not None
    assert plain.memory.storage == "memory"


def test_a_prediction_has_the_units_of_the_run_and_leaves_nothing(
    settings: Callable[..., MainJob], tmp_path: Path
) -> None:
    config = settings(effort="max", selector="obd")
    before = set(tmp_path.iterdir())
    planned = run_plan(config)
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "__pycache__"}
    report: PruneReport = run_prune(config).report
    assert [unit.layers for unit in planned.units] == [solve.layers for solve in report.solves]
    assert planned.units[1].like == planned.units[0].layers[0]  # the same shapes: measured once
    assert planned.units[0].seconds == planned.units[1].seconds > 0
    assert all(planned.stages[stage] > 0 for stage in ("load", "permute", "masks", "sensitivity", "forward", "final"))
    assert planned.seconds == pytest.approx(sum(planned.stages.values()) + 2 * planned.units[0].seconds)
    assert planned.memory.units == report.memory.units if report.memory else False


def test_nothing_is_made_on_the_default_device() -> None:
    """A tensor that is made without a device would meet a GPU's: here it has no values and cannot be computed with."""
    for net in NETS.values():
        program = make_program(net())
        names = [n for n, t in program.state_dict.items() if n.endswith("weight") and t.dim() > 1][1:3]
        images = torch.randn(12, 3, 8, 8).split(4)
        method = Reconstruction(horizon="block", targets="auto", newton=NewtonCG(max_steps=1), free=True)
        plan = Plan(
            method,
            sensitivity=0.5,
            held_back=1,
            reestimate=True,
            final=Reconstruction(horizon="block", targets=1.0, newton=NewtonCG(max_steps=1), free=True),
        )
        with torch.device("meta"):
            found = prune_program(program, images, names, Pattern(2, 4), plan, observer=NullObserver())
        assert all(tensor.device.type == "cpu" for tensor in found.tensors.values())


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert choose_device("auto") == torch.device("cpu")
        with pytest.raises(UsageError, match="--device names a GPU that PyTorch cannot use") as caught:
            choose_device("cuda:1")
        assert caught.value.seen == "cuda:1; usable GPUs: 0"
    with pytest.raises(UsageError, match="--device cannot have this value"):
        read_settings(MainJob, {"model": "m", "data": "d", "out": "o", "device": "gpu"})


def test_a_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 1)
    assert choose_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(UsageError) as caught:
        choose_device("cuda:2")
    assert caught.value.allowed == "auto, cpu, cuda:0, cuda:1"


def test_a_program_moves_with_everything_that_its_nodes_make(tiny: Program) -> None:
    moved = tiny.on(torch.device("meta"))
    assert {t.device.type for t in moved.state_dict.values()} == {"meta"}
    assert {t.device.type for t in tiny.state_dict.values()} == {"cpu"}
    assert all(str(n.kwargs["device"]) == "meta" for n in moved.exported.graph.nodes if "device" in n.kwargs)
    assert moved.on(torch.device("meta")) is moved


def test_batches_go_to_the_device_when_they_are_asked_for() -> None:
    batches = OnDevice([torch.ones(2), torch.zeros(3)], torch.device("meta"))
    assert [(len(b), b.device.type) for b in batches] == [(2, "meta"), (3, "meta")]
    assert [len(b) for b in batches[1:]] == [3]


def test_tf32_is_switched_back() -> None:
    before = torch.backends.cudnn.allow_tf32

    def fail() -> None:
        with matmul_tf32(not before):
            assert torch.backends.cudnn.allow_tf32 is not before
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert torch.backends.cudnn.allow_tf32 is before
