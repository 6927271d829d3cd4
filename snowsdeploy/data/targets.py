"""What items are judged against: classes, masks and images as arrays, anything else as objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from snowsdeploy.errors import DataError


def targets_of(given: Any, count: int, option: str) -> NDArray[Any]:  # noqa: ANN401 - whatever a data set gives
    """A batch's targets, one for each item along the first axis.

    Args:
        given: A tensor, an array, a list with a value for each item, or a dict of such.
        count: Items of the batch.
        option: What the user gave them with, for messages.

    Raises:
        DataError: Their number is not that of the items, or classes are below zero.
    """
    if isinstance(given, Mapping):
        columns = {key: targets_of(value, count, option) for key, value in given.items()}
        return as_objects([{key: column[item] for key, column in columns.items()} for item in range(count)])
    values = _array(given)
    if values.ndim == 0 or len(values) != count:
        raise DataError(
            f"the labels of {option} do not fit its images",
            seen=f"{values.dtype} {list(values.shape)} beside {count} images",
            allowed="one target for each image: a class from 0 on, a mask, an image, or an object of any kind",
            fix=f"give {count} labels, in the order of the images",
        )
    if values.ndim == 1 and np.issubdtype(values.dtype, np.integer):
        if values.size and values.min() < 0:
            raise DataError(
                f"the labels of {option} do not fit its images",
                seen=f"label {values.min()}",
                allowed="a whole number from 0 on for each image",
                fix="number the classes from 0 on, and leave out images without a class",
            )
        if values.size and values.max() > np.iinfo(np.int64).max:
            raise DataError(
                f"the labels of {option} do not fit its images",
                seen=f"label {values.max()}",
                allowed=f"whole numbers up to {np.iinfo(np.int64).max}",
                fix="number the classes from 0 on",
            )
        return values.astype(np.int64)
    return values


def _array(given: Any) -> NDArray[Any]:  # noqa: ANN401 - as above
    if isinstance(given, list | tuple):
        values = [value.detach().cpu().numpy() if isinstance(value, Tensor) else value for value in given]
        plain = all(isinstance(value, np.ndarray | int | float | np.generic) for value in values)
        if plain and len({np.shape(value) for value in values}) == 1:
            return np.asarray(values)
        return as_objects(values)
    return np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)


def as_objects(values: Sequence[Any]) -> NDArray[Any]:
    """`[items]` of objects, whatever they are."""
    made = np.empty(len(values), dtype=np.object_)
    for place, value in enumerate(values):
        made[place] = value
    return made


def targets_digest(targets: NDArray[Any]) -> bytes:
    """Identifies them: the bytes of an array, or what objects consist of."""
    if targets.dtype != np.object_:
        return targets.tobytes()
    digest = sha256()
    for part in _parts(targets):
        digest.update(part)
    return digest.digest()


def _parts(value: Any) -> Iterable[bytes]:  # noqa: ANN401 - as above
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype != np.object_:
        yield f"{value.dtype}{value.shape}".encode()
        yield value.tobytes()
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield str(key).encode()
            yield from _parts(value[key])
    elif isinstance(value, list | tuple | np.ndarray):
        for one in value:
            yield from _parts(one)
    else:
        yield repr(value).encode()
