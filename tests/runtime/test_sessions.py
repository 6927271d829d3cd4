"""Sessions, parity, accuracy and latency on a small real ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from snowsdeploy.batch import Batch
from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import NumericsError, ProviderError
from snowsdeploy.measure.latency import measure_latency
from snowsdeploy.measure.parity import measure_parity
from snowsdeploy.models.fp32 import run_in_fp64
from snowsdeploy.models.program import Program
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.settings.runtime import RuntimeSettings
from snowsdeploy.tasks.base import Array
from snowsdeploy.tasks.classify import Classify
from snowsdeploy.tasks.evaluate import Judge, evaluate
from snowsdeploy.values import Accuracy, DataInfo
from snowsdeploy_exporters import OnnxExporter
from tests.nets import TinyCNN, make_program


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Program, Path]:
    torch.manual_seed(0)
    program = make_program(TinyCNN())
    path = tmp_path_factory.mktemp("onnx") / "dense.onnx"
    OnnxExporter().export(program, path, "dense", {})
    return program, path


def images(count: int, labels: np.ndarray | None) -> Samples:
    data = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    info = DataInfo(source="random", items=count, labelled=labels is not None, origin="o", fingerprint="f")
    return Samples(lambda indices: data[list(indices)], tuple(range(count)), labels, info)


def test_parity_of_an_export_is_small_and_of_another_program_is_not(exported: tuple[Program, Path]) -> None:
    program, path = exported
    session = OrtSession.open(path)
    batches = [torch.randn(n, 3, 8, 8) for n in (1, 4)]
    parity = measure_parity(program.run, session, batches)
    assert parity.worst_relative_l2 < 1e-5
    assert [row.batch for row in parity.rows] == [1, 4]
    other = program.with_weights({"strided.weight": torch.zeros(12, 8, 1, 3)})
    assert measure_parity(other.run, session, batches).worst_relative_l2 > 1e-3


def test_what_rounding_alone_does_is_asked_for_outputs_that_differ_much(exported: tuple[Program, Path]) -> None:
    program, path = exported
    session = OrtSession.open(path)
    batch = torch.randn(4, 3, 8, 8)
    asked: list[int] = []

    def exact(images: Batch) -> tuple[Tensor, ...]:
        asked.append(len(images))
        return run_in_fp64(program, images)

    measure_parity(program.run, session, [batch], exact)
    assert asked == []
    off = [o * (1 + 1e-3) for o in program.run(batch)]
    (row,) = measure_parity(lambda _: off, session, [batch], exact).rows
    assert asked == [4]
    assert row.rounding == pytest.approx(1e-3, rel=1e-2)
    assert row.within(1e-4)  # so far is this "PyTorch" from the truth that the file's distance from it says nothing
    (honest,) = measure_parity(program.run, session, [batch], lambda _: program.run(batch)).rows
    assert not honest.model_copy(update={"relative_l2": 1e-2, "rounding": 1e-6}).within(1e-4)


def test_outputs_that_are_not_finite_are_named(exported: tuple[Program, Path]) -> None:
    session = OrtSession.open(exported[1])
    with pytest.raises(NumericsError, match="PyTorch"):
        measure_parity(lambda x: [torch.full((len(x), 5), torch.nan)], session, [torch.zeros(2, 3, 8, 8)])


def test_every_node_ran_on_the_cpu(exported: tuple[Program, Path]) -> None:
    session = OrtSession.open(exported[1])
    assert set(session.placement) == {"CPUExecutionProvider"}
    assert sum(session.placement.values()) > 1


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "tensorrt-rtx"])
def test_a_provider_that_does_not_load_is_refused(exported: tuple[Program, Path], provider: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, where the provider may load")
    with pytest.raises(ProviderError) as caught:
        OrtSession.open(exported[1], RuntimeSettings(provider=provider))
    assert f"--provider {provider}" in str(caught.value)
    assert caught.value.fix


def accuracy(session: OrtSession, data: Samples, batch: int) -> Accuracy:
    """Of a file against itself."""

    def run(images: Batch) -> list[Array]:
        return session.run(images.numpy())

    judge = Judge(Classify(), session.output_names)
    found = evaluate({"dense": run, "sparse": run}, "dense", data, judge, batch_size=batch)
    return found.accuracy("sparse", provider="cpu")


def test_accuracy_is_that_of_the_outputs(exported: tuple[Program, Path]) -> None:
    program, path = exported
    session = OrtSession.open(path)
    data = images(30, None)
    predicted = program.run(data.read(data.indices))[0].argmax(1).numpy()
    labels = np.where(np.arange(30) < 21, predicted, (predicted + 1) % 5).astype(np.int64)
    found = accuracy(session, images(30, labels), 7)
    assert found.metric is not None
    assert (found.metric.dense.value, found.metric.dense.items) == (21 / 30, 30)
    assert [metric.name for metric in found.metrics] == ["top1"]  # five classes
    assert found.agreement[0].measured.value == 1.0
    assert accuracy(session, data, 7).metric is None


def test_latency_times_both_files_at_each_batch_size(exported: tuple[Program, Path]) -> None:
    session = OrtSession.open(exported[1])
    found = measure_latency(
        lambda: (session, session), lambda n: np.zeros((n, 3, 8, 8), np.float32), (1, 3), runs=6, openings=3
    )
    assert [(s.role, s.batch, s.runs) for s in found.series] == [
        ("dense", 1, 6), ("sparse", 1, 6), ("dense", 3, 6), ("sparse", 3, 6)
    ]  # fmt: skip
    assert all(0 < s.p50_ms <= s.p90_ms <= s.p99_ms for s in found.series)
    assert all(r.low <= r.speedup <= r.high for r in found.ratios)
    assert found.uses_sparsity == "no"
    assert "no speed here" in found.note
