"""Arrays and tensors with NaN or Inf -> one refusal."""

from __future__ import annotations

from pathlib import Path

from snowsdeploy.errors import DataError


def not_finite(what: str, bad: int, total: int, path: Path | None = None) -> DataError:
    """The error for values that are no numbers.

    Args:
        what: What holds them, as the user calls it.
        bad: How many there are.
        total: Of how many.
        path: The file that they are in.
    """
    return DataError(
        f"{what} holds NaN or Inf",
        seen=f"{path}: {bad} of {total} values" if path else f"{bad} of {total} values",
        allowed="finite numbers",
        fix="replace or remove these values, for example with numpy.nan_to_num",
    )
