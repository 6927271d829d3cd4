"""A dense model's ONNX file beside its program, before anything is solved."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from snowsdeploy.batch import Batch
from snowsdeploy.measure.parity import measure_parity
from snowsdeploy.models.fp32 import run_in_fp64
from snowsdeploy.models.program import Program
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.runtime.survival import native_crashes
from snowsdeploy.settings.runtime import RuntimeSettings
from snowsdeploy.stages.validate import crashed_on_dense
from snowsdeploy.values import ParityRow


def compare_dense(program: Program, path: Path, batches: Sequence[Batch]) -> tuple[ParityRow, ...]:
    """Run both on the same batches, on the CPU whatever the run's provider is: an engine would take minutes to build.

    Args:
        program: Dense, in FP32.
        path: Its file.
        batches: What the model takes.

    Returns:
        A row for each output and batch.

    Raises:
        ProviderError: ONNX Runtime cannot load or run the file, or ends the process that does.
        NumericsError: The file gives other shapes, or no finite numbers.
    """
    runtime = RuntimeSettings()
    if how := native_crashes([path], runtime).get(path):
        raise crashed_on_dense(how, runtime.provider)
    return measure_parity(program.run, OrtSession.open(path, runtime), batches, partial(run_in_fp64, program)).rows
