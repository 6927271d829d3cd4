"""Images in an `.npz` file: `x` as uint8 NHWC pixels or float NCHW inputs, and `y` as optional labels."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snowsdeploy.artifacts import Preprocessing
from snowsdeploy.errors import DataError

_ALLOWED = "x: uint8 [n, H, W, C] (or [n, H, W]) or float [n, C, H, W]; y: integers [n]"


@dataclass(frozen=True)
class Arrays:
    """What an `.npz` holds: pixels `[n, H, W, C]` uint8, or inputs `[n, C, H, W]` float32."""

    x: NDArray[np.uint8] | NDArray[np.float32]
    y: NDArray[np.int64] | None
    sha256: str

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        shape = self.x.shape
        return (shape[3], shape[1], shape[2]) if self.x.dtype == np.uint8 else (shape[1], shape[2], shape[3])


def load_arrays(path: Path, preprocessing: Preprocessing | None) -> Arrays:
    """Read and check a file; pickled arrays are refused.

    Raises:
        DataError: Unreadable, wrong arrays, or another size than the model's input.
    """
    try:
        with path.open("rb") as stream:
            digest = file_digest(stream, "sha256").hexdigest()
        with np.load(path, allow_pickle=False) as stored:
            names = set(stored.files)
            x = stored["x"] if "x" in names else None
            y = stored["y"] if "y" in names else None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError("the .npz file cannot be read", seen=f"{path}: {error}", allowed=_ALLOWED) from error
    if x is None:
        raise DataError("the .npz file has no array x", seen=f"{path}: {', '.join(sorted(names))}", allowed=_ALLOWED)
    if x.dtype == np.uint8 and x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or not (x.dtype == np.uint8 or np.issubdtype(x.dtype, np.floating)) or not len(x):
        raise DataError("x has the wrong type or shape", seen=f"{path}: {x.dtype} {x.shape}", allowed=_ALLOWED)
    if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
        raise DataError("x holds NaN or Inf", seen=f"{path}: {int((~np.isfinite(x)).sum())} values")
    if y is not None and (y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer)):
        raise DataError("y does not fit x", seen=f"{path}: y {y.dtype} {y.shape}, x {x.shape}", allowed=_ALLOWED)
    arrays = Arrays(
        x if x.dtype == np.uint8 else x.astype(np.float32), None if y is None else y.astype(np.int64), digest
    )
    if preprocessing is not None and arrays.size != preprocessing.input_size:
        raise DataError(
            "the images do not have the model's input size",
            seen=f"{path}: {'x'.join(map(str, arrays.size))}",
            allowed="x".join(map(str, preprocessing.input_size)) + " (channels x height x width)",
            fix="pass --input-size, or resize the images",
        )
    return arrays


def array_reader(
    x: NDArray[np.uint8] | NDArray[np.float32], preprocessing: Preprocessing
) -> Callable[[Sequence[int]], Tensor]:
    """Read items: uint8 pixels are scaled to [0, 1] and normalised, floats are taken as they are."""
    mean = torch.tensor(preprocessing.mean).view(-1, 1, 1)
    std = torch.tensor(preprocessing.std).view(-1, 1, 1)

    def read(indices: Sequence[int]) -> Tensor:
        batch = torch.from_numpy(x[list(indices)])
        if batch.dtype == torch.uint8:
            return ((batch.permute(0, 3, 1, 2).float() / 255 - mean) / std).contiguous()
        return batch

    return read
