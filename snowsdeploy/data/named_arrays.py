"""Arrays of an `.npz` file under the names of a model's inputs, taken as they are."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snowsdeploy.batch import Batch, Inputs
from snowsdeploy.data.arrays import Arrays, checked_labels, header_of, readable, stored_array
from snowsdeploy.data.finite import not_finite
from snowsdeploy.errors import DataError
from snowsdeploy.files import sha256_of
from snowsdeploy.values import InputInfo

LABELS = ("y", "label", "labels", "target", "targets")
ONE_ARRAY = "x"


def array_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Name -> shape and type, read without the content.

    Raises:
        DataError: The file cannot be read.
    """
    with readable(path), zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        return {name: header_of(archive, name) for name in names}


def array_inputs(path: Path, names: Sequence[str]) -> tuple[InputInfo, ...] | None:
    """The inputs whose arrays a file holds; None where it holds images as `x`.

    Args:
        path: An `.npz` file.
        names: Of what the model can take, in order; a single input may also lie under `x`.

    Raises:
        DataError: The file cannot be read.
    """
    headers = array_headers(path)
    found = [name for name in names if name in headers and name not in LABELS]
    if not found and ONE_ARRAY in headers:
        found = [ONE_ARRAY]
    if found == [ONE_ARRAY] and _may_be_images(*headers[ONE_ARRAY]):
        return None
    return (
        tuple(InputInfo(name=name, shape=headers[name][0][1:], dtype=_dtype(headers[name][1])) for name in found)
        or None
    )


def _may_be_images(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    pixels = dtype == np.uint8 and len(shape) in (3, 4)
    return pixels or (len(shape) == 4 and bool(np.issubdtype(dtype, np.floating)))


def _dtype(dtype: np.dtype[Any]) -> str:
    """Numbers of double precision are rounded to what models take."""
    return "float32" if np.issubdtype(dtype, np.floating) else dtype.name


def load_named_arrays(path: Path, inputs: Sequence[InputInfo]) -> tuple[Arrays[dict[str, Tensor]], int]:
    """Read and check the arrays of some inputs; pickled ones are refused.

    Args:
        path: An `.npz` file.
        inputs: By name; a single one may also lie under `x`.

    Returns:
        The arrays as tensors of the inputs' types, and how many items they hold.

    Raises:
        DataError: Unreadable, an array is missing, or does not have the input's shape or type.
    """
    with readable(path):
        digest = sha256_of(path)
        array_headers(path)  # refuses arrays that are larger than they can be
        with np.load(path, allow_pickle=False) as stored:
            keys = {info.name: _key(info, stored.files, len(inputs)) for info in inputs}
            missing = [name for name, key in keys.items() if key is None]
            if missing:
                raise DataError(
                    "the .npz file lacks an input of the model",
                    seen=f"{path}: {', '.join(stored.files)}",
                    allowed=", ".join(map(str, inputs)),
                    fix="store each input as an array under its name",
                )
            arrays = {info.name: _checked(stored_array(stored, str(keys[info.name])), info, path) for info in inputs}
            label = next((name for name in LABELS if name in stored.files and name not in keys.values()), None)
            y = None if label is None else stored_array(stored, label)
    counts = {len(array) for array in arrays.values()}
    if len(counts) > 1:
        raise DataError(
            "the arrays of the .npz file differ in length",
            seen=f"{path}: {', '.join(f'{n} {len(a)}' for n, a in arrays.items())}",
            allowed="as many items in each array, along its first axis",
            fix="save the arrays again with the same items",
        )
    (count,) = counts
    return Arrays(arrays, None if y is None else checked_labels(y, count, path), digest), count


def _key(info: InputInfo, names: Sequence[str], inputs: int) -> str | None:
    if info.name in names:
        return info.name
    return ONE_ARRAY if inputs == 1 and ONE_ARRAY in names else None


def _checked(array: NDArray[Any], info: InputInfo, path: Path) -> Tensor:
    whole = not np.issubdtype(np.dtype(info.dtype), np.floating)
    if array.shape[1:] != info.shape or not array.ndim or whole == bool(np.issubdtype(array.dtype, np.floating)):
        raise DataError(
            f"the array {info.name} does not fit the model's input",
            seen=f"{path}: {array.dtype} {list(array.shape)}",
            allowed=f"{info.dtype} [n{''.join(f', {size}' for size in info.shape)}]",
            fix=f"save {info.name} again in this type and shape, or say what the model takes with "
            f"--input {info.name}=SHAPE:TYPE",
        )
    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(getattr(torch, info.dtype))
    if not bool(torch.isfinite(tensor).all()):
        raise not_finite(f"the array {info.name}", int((~torch.isfinite(tensor)).sum()), tensor.numel(), path)
    return tensor


def named_reader(arrays: dict[str, Tensor]) -> Callable[[Sequence[int]], Batch]:
    """Read items: one tensor, or several by their names."""

    def read(indices: Sequence[int]) -> Batch:
        chosen = {name: tensor[list(indices)] for name, tensor in arrays.items()}
        return Inputs(chosen) if len(chosen) > 1 else next(iter(chosen.values()))

    return read
