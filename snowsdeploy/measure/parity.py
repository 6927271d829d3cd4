"""Numerical parity: the pruned program in PyTorch against its ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from torch import Tensor

from snowsdeploy.errors import NumericsError
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.values import Parity, ParityRow


def measure_parity(
    reference: Callable[[Tensor], Sequence[Tensor]], session: OrtSession, batches: Iterable[Tensor]
) -> Parity:
    """Compare every output on every batch.

    Args:
        reference: The program in PyTorch, images -> outputs.
        session: The ONNX file.
        batches: Images `[batch, C, H, W]`, one batch a row.

    Raises:
        NumericsError: An output of either side is NaN or Inf, or the numbers of outputs or shapes differ.
    """
    rows = []
    for images in batches:
        expected = [o.numpy() for o in reference(images)]
        actual = session.run(images.numpy())
        if [e.shape for e in expected] != [a.shape for a in actual]:
            raise NumericsError(
                "the ONNX outputs differ from PyTorch's in number or shape",
                seen=[a.shape for a in actual],
                allowed=str([e.shape for e in expected]),
            )
        for name, e, a in zip(session.output_names, expected, actual, strict=True):
            for side, values in (("PyTorch", e), ("ONNX Runtime", a)):
                if not np.isfinite(values).all():
                    raise NumericsError(f"output {name} is NaN or Inf in {side}", seen=f"batch of {len(images)}")
            difference = a.astype(np.float64) - e.astype(np.float64)
            scale = float(np.linalg.norm(e.astype(np.float64)))
            error = float(np.linalg.norm(difference))
            rows.append(
                ParityRow(
                    output=name,
                    batch=len(images),
                    max_abs=float(np.abs(difference).max(initial=0.0)),
                    relative_l2=error / scale if scale else error,
                )
            )
    return Parity(provider=session.provider.name, rows=tuple(rows))
