"""Numerical parity: the pruned program in PyTorch against its ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from snowsdeploy.batch import Batch
from snowsdeploy.errors import NumericsError
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.values import Parity, ParityRow

Reference = Callable[[Batch], Sequence[Tensor]]
SUSPECT = 1e-5  # relative; below it nothing needs an excuse


def measure_parity(
    reference: Reference, session: OrtSession, batches: Iterable[Batch], exact: Reference | None = None
) -> Parity:
    """Compare every output on every batch.

    Args:
        reference: The program in PyTorch, batch -> outputs.
        session: The ONNX file.
        batches: What the model takes, one batch a row.
        exact: The program in FP64; asked where an output differs much, to know what rounding alone does.

    Raises:
        NumericsError: An output of either side is NaN or Inf, or the numbers of outputs or shapes differ.
    """
    rows = []
    for batch in batches:
        expected = [o.numpy() for o in reference(batch)]
        actual = session.run(batch.numpy())
        if [e.shape for e in expected] != [a.shape for a in actual]:
            raise NumericsError(
                "the ONNX outputs differ from PyTorch's in number or shape",
                seen=_shapes(actual),
                allowed=_shapes(expected),
                fix="please report the model; another --opset, or --outputs without the output that differs, may do",
            )
        for name, e, a in zip(session.output_names, expected, actual, strict=True):
            for side, values in (("PyTorch", e), ("ONNX Runtime", a)):
                if not np.isfinite(values).all():
                    raise NumericsError(
                        f"output {name} is NaN or Inf in {side}",
                        seen=f"{int((~np.isfinite(values)).sum())} of {values.size} values in a batch of {len(batch)}",
                        allowed="finite numbers on both sides",
                        fix="check the images and the checkpoint; where it is only in one precision, leave that out "
                        "of --precision",
                    )
            rows.append(_row(name, len(batch), e, a))
        if exact is not None and any(row.relative_l2 > SUSPECT for row in rows[-len(expected) :]):
            rows[-len(expected) :] = _with_rounding(rows[-len(expected) :], expected, exact, batch)
    return Parity(provider=session.provider.name, rows=tuple(rows))


def _shapes(outputs: Sequence[NDArray[Any]]) -> str:
    return ", ".join(str(list(output.shape)) for output in outputs)


def _with_rounding(
    rows: Sequence[ParityRow], expected: Sequence[NDArray[Any]], exact: Reference, batch: Batch
) -> list[ParityRow]:
    try:
        truth = [o.numpy() for o in exact(batch)]
    except Exception:  # an operator without FP64 raises what it likes; then nothing is excused
        return list(rows)
    pairs = zip(rows, expected, truth, strict=True)
    return [
        row.model_copy(update={"rounding": _row(row.output, row.batch, t, e).relative_l2})
        if np.issubdtype(e.dtype, np.floating) and np.isfinite(t).all()
        else row
        for row, e, t in pairs
    ]


def _row(name: str, batch: int, expected: NDArray[Any], actual: NDArray[Any]) -> ParityRow:
    """One output as what it is: real numbers by their distance, all others by how many differ."""
    e, a = expected.astype(np.float64), actual.astype(np.float64)
    difference = a - e
    if expected.dtype == np.float16:  # neighbours of half precision are the same number, rounded either way
        difference = np.where(np.abs(difference) <= np.spacing(np.abs(expected)).astype(np.float64), 0.0, difference)
    if np.issubdtype(expected.dtype, np.floating):
        scale, error = float(np.linalg.norm(e)), float(np.linalg.norm(difference))
        relative = error / scale if scale else error
    else:
        relative = float(np.mean(difference != 0)) if difference.size else 0.0
    return ParityRow(
        output=name,
        batch=batch,
        max_abs=float(np.abs(difference).max(initial=0.0)),
        relative_l2=relative,
        dtype=expected.dtype.name,
    )
