"""The end of the run tried at its start: the dense model as an ONNX file, opened and run, before anything is solved."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import ExportError
from snowsdeploy.layout.onnx_layout import graph_nodes
from snowsdeploy.models.program import Program
from snowsdeploy.models.sizes import other_sizes, resampled
from snowsdeploy.progress import Observer
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.stages.dense_file import compare_dense
from snowsdeploy.stages.export import Exporter

BATCHES = (1, 3)  # of a model that takes any number of items


def rehearse(
    program: Program,
    layers: Sequence[str],
    calibration: Samples,
    exporter: Exporter,
    *,
    policy: GatePolicy,
    observer: Observer,
) -> None:
    """Write the dense model, open it in ONNX Runtime and compare it with PyTorch.

    Args:
        program: Dense.
        layers: Names of those that will be pruned: the file must hold each.
        calibration: Its first items are run, also at other sizes of the axes that vary.
        exporter: Of the run.
        policy: Its limit of parity in FP32 is what a warning is about.
        observer: Warned where the dense file alone is beyond that limit.

    Raises:
        ExportError: The model cannot be written, or its file does not hold every layer.
        ProviderError: ONNX Runtime cannot load or run the file, or ends the process that does.
        NumericsError: The file gives other shapes, or no finite numbers.
        UsageError: The exporter was told of layers that the file does not have.
    """
    observer.message("trying the ONNX export of the dense model")
    fixed = program.signature.batch
    sizes = BATCHES if fixed is None else (fixed,)
    batches = [calibration.rows(0, n) for n in sizes if n <= len(calibration)]
    batches += [resampled(calibration.rows(0, fixed or 2), inputs) for inputs in other_sizes(program)]
    with tempfile.TemporaryDirectory() as folder:
        file = exporter.export(program, Path(folder) / "dense.onnx", "dense", {})
        known = graph_nodes(file.path).products
        if missing := [name for name in layers if name not in known]:
            raise ExportError(
                "the ONNX file does not multiply by every layer that is to be pruned",
                seen=f"not in it: {', '.join(missing[:5])}",
                allowed="a Conv, Gemm or MatMul with the weight of each layer",
                fix=f"leave it dense with --exclude {missing[0]}, and please report the model",
            )
        rows = compare_dense(program, file.path, batches)
    limit, worst = policy.parity_limit("fp32"), max(rows, key=lambda row: row.relative_l2)
    if limit is not None and not worst.within(limit):
        observer.warn(
            f"the dense model itself differs between PyTorch and ONNX Runtime by {worst.relative_l2:.1e} (output "
            f"{worst.output}, batch {worst.batch}): the limit of parity, {limit:.0e}, cannot be kept"
        )
