"""Where the values of a file leave those of the program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto

from snowsdeploy.batch import Batch
from snowsdeploy.diagnose.bisection import Kind, first_divergent, kind_of, most_added
from snowsdeploy.diagnose.divergence import Comparison, difference
from snowsdeploy.diagnose.intermediates import Values, file_values
from snowsdeploy.errors import OutputError, ProviderError, SourceError
from snowsdeploy.layout.onnx_file import read_onnx_file
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.progress import Observer
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.settings.runtime import RuntimeSettings
from snowsdeploy.values import PARITY_LIMITS, Divergence, Precision, ValueDifference


def debug_parity(
    pruned: Program,
    file: Path,
    fp32_file: Path,
    images: Batch,
    runtime: RuntimeSettings,
    *,
    precision: Precision,
    observer: Observer,
    images_from: str,
    changed: bool = False,
    tolerance: float | None = None,
) -> Divergence:
    """Compare every value of a sparse file with the pruned program.

    The file itself is judged, without graph rewriting; what ONNX Runtime's usual rewriting changes is measured on the
    outputs alone, since a value that is watched cannot be fused away.

    Args:
        pruned: The program.
        file: The sparse file.
        fp32_file: The same in FP32, for values that the program does not have.
        images: `[batch, C, H, W]`.
        runtime: Where it runs.
        precision: Of the file.
        observer: Told about progress.
        images_from: What the images are, for the result.
        changed: Whether the file is another than the export stage wrote.
        tolerance: Largest relative error that is no divergence; None for the precision's parity limit.

    Raises:
        OutputError: A file cannot be read, or holds no value that can be compared.
        ProviderError: The file does not run there at all.
    """
    path = file
    model, limit = _read(path), PARITY_LIMITS[precision] if tolerance is None else tolerance
    batch = images
    observer.stage("debug parity", f"{path.name} on {runtime.provider}, {images_from}")
    found = file_values(model, runtime, batch.numpy())
    fp32 = {} if precision == "fp32" else file_values(_read(fp32_file), runtime, batch.numpy())
    comparison = Comparison(model, found, ProgramGraph(pruned), batch, fp32)
    rows = tuple(comparison.rows())
    if not rows:
        raise OutputError(
            "no value of the file can be compared",
            seen=path,
            allowed="a file whose values have the names that snowsdeploy export gives",
            fix=f"export again: snowsdeploy export {path.parent}",
        )
    rewriting = _rewriting(path, model, found, runtime, batch)
    first = first_divergent(rows, limit)
    kind = kind_of(first, limit, rewriting)
    return Divergence(
        file=path,
        precision=precision,
        provider=runtime.provider,
        images=len(batch),
        images_from=images_from,
        changed=changed,
        tolerance=limit,
        kind=kind,
        first=first,
        rows=rows,
        compared=comparison.compared,
        rewriting=rewriting,
        conclusion=_conclusion(kind, first, rows, precision=precision, tolerance=limit, rewriting=rewriting),
    )


def _read(path: Path) -> ModelProto:
    fix = f"run snowsdeploy export {path.parent} with this --precision first"
    if not path.exists():
        there = ", ".join(sorted(file.name for file in path.parent.glob("*.onnx"))) or "nothing: it is not exported"
        raise OutputError("the run has no file of this --precision", seen=path, allowed=there, fix=fix)
    try:
        return read_onnx_file(path)
    except SourceError as error:
        raise OutputError(
            "a file of the run cannot be read", seen=error.seen, allowed="what snowsdeploy export wrote", fix=fix
        ) from error


def _rewriting(path: Path, model: ModelProto, found: Values, runtime: RuntimeSettings, images: Batch) -> float:
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
