"""Shared programs and files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from snowsdeploy.models.program import Program
from tests.caches import cached_exports
from tests.nets import NETS, TinyCNN, make_program

# Processes that test side by side share the cores.
torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))


@pytest.fixture(scope="session", autouse=True)
def _cached_exports() -> Iterator[None]:
    """The same program is converted to ONNX once in a process."""
    with cached_exports():
        yield


@pytest.fixture(autouse=True)
def rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No dense model is written before a solve, which would take much of the suite's time; `test_rehearse` does it."""
    monkeypatch.setattr("snowsdeploy.stages.job.rehearse", lambda *_, **__: None)
    for stage in ("validate", "dense_file"):
        monkeypatch.setattr(f"snowsdeploy.stages.{stage}.native_crashes", lambda *_: {})


@pytest.fixture(params=NETS)
def tiny(request: pytest.FixtureRequest) -> Program:
    """Each tiny net as a program in float32."""
    torch.manual_seed(0)
    return make_program(NETS[request.param]())


@pytest.fixture
def tiny_cnn() -> Program:
    """The tiny CNN as a program."""
    torch.manual_seed(0)
    return make_program(TinyCNN())


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real models and images."""
    folder = os.environ.get("SNOWSDEPLOY_DATA")
    if not folder:
        pytest.skip("SNOWSDEPLOY_DATA is not set: it names the folder of real models and images")
    if not Path(folder).is_dir():
        pytest.fail(f"SNOWSDEPLOY_DATA={folder} is not a folder")
    return Path(folder).resolve()
