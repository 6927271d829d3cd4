"""`debug parity`: where the values of a run's file leave those of the program."""

from __future__ import annotations

from hashlib import file_digest
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import ModelProto
from torch import Tensor

from snowsdeploy.artifacts import Divergence, ExportReport, Precision, PruneReport, ValueDifference
from snowsdeploy.config import RuntimeSettings
from snowsdeploy.errors import DataError, OutputError, ProviderError
from snowsdeploy.gate.policy import PARITY_LIMITS
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pipeline.export import calibration_batches
from snowsdeploy.pipeline.prune import load_run
from snowsdeploy.progress import Observer
from snowsdeploy.run_directory import RunDirectory
from snowsdeploy.validation.bisection import Kind, first_divergent, kind_of, most_added
from snowsdeploy.validation.divergence import Comparison, difference
from snowsdeploy.validation.intermediates import Values, file_values
from snowsdeploy.validation.ort import OrtSession


def debug_parity(
    folder: Path,
    precision: Precision,
    runtime: RuntimeSettings,
    *,
    images: int,
    observer: Observer,
    tolerance: float | None = None,
) -> Divergence:
    """Compare every value of the sparse file with the pruned program on calibration images.

    The file itself is judged, without graph rewriting; what ONNX Runtime's usual rewriting changes is measured on the
    outputs alone, since a value that is watched cannot be fused away.

    Args:
        folder: A run directory; a file that was changed since its export is compared too.
        precision: Which file.
        runtime: Where it runs.
        images: How many calibration images; random ones where their source is gone.
        observer: Told about progress.
        tolerance: Largest relative error that is no divergence; None for the precision's parity limit.

    Raises:
        OutputError: The directory has no such file.
        ProviderError: The file does not run there at all.
    """
    run = RunDirectory(folder)
    _, pruned, report = load_run(run)
    path = run.onnx("sparse", precision)
    model, limit = _read(path), PARITY_LIMITS[precision] if tolerance is None else tolerance
    batch, origin = _images(pruned, report, images)
    observer.stage("debug parity", f"{path.name} on {runtime.provider}, {origin}")
    found = file_values(model, runtime, batch.numpy())
    fp32 = {} if precision == "fp32" else file_values(_read(run.onnx("sparse")), runtime, batch.numpy())
    comparison = Comparison(model, found, ProgramGraph(pruned), batch, fp32)
    rows = tuple(comparison.rows())
    if not rows:
        raise OutputError(
            "no value of the file can be compared", seen=path, fix="export again: names tell what a value is"
        )
    rewriting = _rewriting(path, model, found, runtime, batch)
    first = first_divergent(rows, limit)
    kind = kind_of(first, limit, rewriting)
    return Divergence(
        file=path,
        precision=precision,
        provider=runtime.provider,
        images=len(batch),
        images_from=origin,
        changed=_changed(run, path, precision),
        tolerance=limit,
        kind=kind,
        first=first,
        rows=rows,
        compared=comparison.compared,
        rewriting=rewriting,
        conclusion=_conclusion(kind, first, rows, precision=precision, tolerance=limit, rewriting=rewriting),
    )


def _read(path: Path) -> ModelProto:
    try:
        return onnx.load(path)
    except (OSError, DecodeError, onnx.checker.ValidationError) as error:
        raise OutputError(
            "the run has no such file, or it cannot be read",
            seen=f"{path}: {error}",
            fix=f"run snowsdeploy export {path.parent} with this --precision first",
        ) from error


def _images(program: Program, report: PruneReport, count: int) -> tuple[Tensor, str]:
    try:
        batch = calibration_batches(program, report, count, count)[0]
    except DataError as error:
        shape = (count, *program.preprocessing.input_size)
        random = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return random, f"{count} random images, since those of the calibration are not there ({error.what})"
    return batch, f"{len(batch)} calibration images"


def _rewriting(path: Path, model: ModelProto, found: Values, runtime: RuntimeSettings, images: Tensor) -> float:
    """Largest relative difference of an output with and without graph rewriting."""
    names = [o.name for o in model.graph.output]
    if not all(name in found for name in names):
        return 0.0  # the file does not run to its end
    try:
        usual = OrtSession.open(path, runtime).run(images.numpy())
    except ProviderError:
        return float("inf")
    pairs = zip(usual, (found[name] for name in names), strict=True)
    return max((difference(np.asarray(a), b)[0] for a, b in pairs), default=0.0)


def _changed(run: RunDirectory, path: Path, precision: Precision) -> bool:
    try:
        report = ExportReport.model_validate_json(run.export.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    known = [pair.sparse.sha256 for pair in report.pairs if pair.precision == precision]
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest() not in known


def _conclusion(
    kind: Kind,
    first: ValueDifference | None,
    rows: tuple[ValueDifference, ...],
    *,
    precision: Precision,
    tolerance: float,
    rewriting: float,
) -> str:
    worst = max(rows, key=lambda row: row.relative_l2)
    if kind == "rewriting":
        return (
            f"{precision}: every value of the file is within {tolerance:.0e}, but what ONNX Runtime makes of the file "
            f"changes its outputs by {rewriting:.1e}: run it without graph optimisation, or with another version."
        )
    if first is None:
        return (
            f"{precision}: every compared value is within {tolerance:.0e}; the largest error is "
            f"{worst.relative_l2:.1e}, at {worst.value}: nothing to do."
        )
    if kind == "accumulates":
        names = ", ".join(f"{place(row)} ({row.added:.1e})" for row in most_added(rows))
        return (
            f"{precision}: the error grows from node to node and passes {tolerance:.0e} at {place(first)}; "
            f"most is added by {names}: {_remedy(precision)}."
        )
    error = f"{first.relative_l2:.1e}" if np.isfinite(first.relative_l2) else "NaN, Inf or another shape"
    return (
        f"{precision}: {place(first)} is the first to diverge: relative error {error}, where its inputs have "
        f"{first.error_in:.1e} at most: {_remedy(precision)}."
    )


def _remedy(precision: Precision) -> str:
    if precision == "fp32":
        return "export again; if it stays, replace that operation in the model or try another --opset"
    return f"keep it in FP32 (export --keep-fp32 LAYER), or leave {precision} out of --precision"


def place(row: ValueDifference) -> str:
    """A node as a reader can find it: operator, node and layer."""
    inside = f" of {len(row.nodes)} nodes up to {row.node}" if len(row.nodes) > 1 else f" {row.node}"
    layers = f", layer {', '.join(row.layers)}" if row.layers else ""
    return f"{row.operator}{inside}{layers}"
