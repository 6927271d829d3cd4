"""Whether an imported ONNX file computes in PyTorch what ONNX Runtime makes of it."""

from __future__ import annotations

from pathlib import Path

from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import GraphError, NumericsError
from snowsdeploy.models.program import Program
from snowsdeploy.stages.dense_file import compare_dense

ITEMS = (1, 8)  # batches of so many, where the file takes any number
LIMIT = 1e-3  # relative, beyond what rounding explains: both compute in FP32, a wrong operator is off by far more


def require_imported(program: Program, calibration: Samples) -> float:
    """Run the file itself beside its program on calibration data.

    Args:
        program: As it was imported; nothing in it has changed.
        calibration: Its first items are run.

    Returns:
        The largest relative error of an output, L2.

    Raises:
        GraphError: The program computes something else.
        ProviderError: ONNX Runtime cannot load or run the file, or ends the process that does.
    """
    fixed = program.signature.batch
    counts = {min(n, len(calibration)) for n in ITEMS} if fixed is None else {fixed}
    batches = [calibration.rows(0, n) for n in sorted(counts)]
    try:
        rows = compare_dense(program, Path(program.source.source), batches)
    except NumericsError as error:
        raise _refused(f"{error.what}: {error.seen}") from error
    worst = max(rows, key=lambda row: row.relative_l2)
    if not all(row.within(LIMIT) for row in rows):
        raise _refused(f"relative error {worst.relative_l2:.1e} of output {worst.output}, batch of {worst.batch}")
    return worst.relative_l2


def _refused(seen: str) -> GraphError:
    return GraphError(
        "the imported model computes something else than ONNX Runtime makes of the file",
        seen=seen,
        allowed=f"a relative error of {LIMIT:.0e}, or ten times what rounding does",
        fix="check that --data are what the model takes; else please report the file's operators",
    )
