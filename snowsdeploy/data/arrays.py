"""Images in an `.npz` file: `x` as uint8 NHWC pixels or float NCHW inputs, and `y` as optional labels."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from torch import Tensor

from snowsdeploy.data.finite import not_finite
from snowsdeploy.data.targets import targets_of
from snowsdeploy.errors import DataError, cause
from snowsdeploy.files import reading, require_regular, sha256_of
from snowsdeploy.machine import available_memory
from snowsdeploy.values import Preprocessing

_ALLOWED = "x: uint8 [n, H, W, C] (or [n, H, W]) or float [n, C, H, W]; y: integers [n]"


X = TypeVar("X")


@dataclass(frozen=True)
class Arrays(Generic[X]):
    """What an `.npz` holds: pixels `[n, H, W, C]` uint8, or inputs as the model takes them; labels `[n]`."""

    x: X
    y: NDArray[Any] | None
    sha256: str


def load_arrays(path: Path, preprocessing: Preprocessing) -> Arrays[NDArray[np.uint8] | NDArray[np.float32]]:
    """Read and check a file; pickled arrays are refused.

    Raises:
        DataError: Unreadable, wrong arrays, or another size than the model's input.
    """
    size = array_size(path)
    if size != preprocessing.input_size:
        raise DataError(
            "the images do not have the model's input size",
            seen=f"{path}: {'x'.join(map(str, size))}",
            allowed="x".join(map(str, preprocessing.input_size)) + " (channels x height x width)",
            fix="pass --input-size, or resize the images",
        )
    with readable(path):
        digest = sha256_of(path)
        with np.load(path, allow_pickle=False) as stored:
            x = stored_array(stored, "x")
            y = stored_array(stored, "y") if "y" in stored.files else None
    if x.dtype != np.uint8:
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise not_finite("x", int((~np.isfinite(x)).sum()), x.size, path)
    elif x.ndim == 3:
        x = x[..., None]
    return Arrays(x, None if y is None else checked_labels(y, len(x), path), digest)


def stored_array(stored: NpzFile, name: str) -> NDArray[Any]:
    """One of a file's arrays.

    Raises:
        TypeError: It is none; numpy gives the bytes of a member that does not begin as an array.
    """
    array = stored[name]
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} is no array")
    return array


def checked_labels(y: NDArray[Any], count: int, path: Path) -> NDArray[Any]:
    """What an archive judges its items against: classes `[items]`, masks or images `[items, ...]`.

    Raises:
        DataError: Their number is not that of the items, they are objects, or classes are below zero.
    """
    if y.dtype == np.object_ or y.dtype.kind in "USV":
        raise DataError(
            f"y of {path} does not hold numbers",
            seen=f"an array of {y.dtype}",
            allowed="whole or real numbers",
            fix="store class indices instead of names: numpy.unique(y, return_inverse=True)[1]",
        )
    return targets_of(y, count, str(path))


def array_size(path: Path) -> tuple[int, int, int]:
    """Channels, height, width of `x`, from its header alone.

    Raises:
        DataError: Unreadable, no `x`, or an `x` that holds no images.
    """
    with readable(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "x.npy" not in names:
            seen = ", ".join(n.removesuffix(".npy") for n in names)
            raise DataError(
                "the .npz file has no array x",
                seen=f"{path}: {seen[:160] or 'no array'}",
                allowed=_ALLOWED,
                fix="save the images as x: numpy.savez('images.npz', x=images)",
            )
        shape, dtype = header_of(archive, "x")
    pixels = dtype == np.uint8
    if pixels and len(shape) == 3:  # grey images without an axis of channels
        shape = (*shape, 1)
    # the channels of the other layout; a vector as an image of one pixel has no side that could be one
    there, here = (1, 3) if pixels else (3, 1)
    wrong_axis = len(shape) == 4 and shape[there] in (1, 3) and min(shape[2], shape[here]) > 4
    if not (pixels or np.issubdtype(dtype, np.floating)) or len(shape) != 4 or not all(shape) or wrong_axis:
        raise DataError(
            "x has the wrong type or shape",
            seen=f"{path}: {dtype} {list(shape)}",
            allowed=_ALLOWED,
            fix="convert x with astype, or put its axes in order with numpy.transpose, and save it again",
        )
    return (shape[3], shape[1], shape[2]) if pixels else (shape[1], shape[2], shape[3])


def holds_reals(path: Path) -> bool:
    """Whether `x` holds real numbers.

    Raises:
        DataError: Unreadable.
    """
    with readable(path), zipfile.ZipFile(path) as archive:
        return "x.npy" in archive.namelist() and bool(np.issubdtype(header_of(archive, "x")[1], np.floating))


def header_of(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array of an open `.npz` file, which must have as many bytes as it says and memory has."""
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        size = prod(shape) * dtype.itemsize
        if any(isinstance(axis, bool) or axis < 0 for axis in shape) or stream.tell() + size > member.file_size:
            raise ValueError(f"{name} does not hold the values of its shape {shape}")
    if size > available_memory():
        raise ValueError(f"{name} has {size} bytes, more than the memory that is left")
    return shape, dtype


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """The door for `.npz` files: one message for whatever a damaged one makes its readers raise."""
    require_regular(path, "the .npz file is no file", DataError)
    with reading(lambda error: _damaged(path, error)):
        yield


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        "the .npz file cannot be read",
        seen=f"{path}: {cause(error)}",
        allowed=f"a file of numpy.savez with {_ALLOWED}",
        fix="check that the file is complete and readable; write it again with numpy.savez, without objects",
    )


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
