"""Tensors, data sets and batches that a Python program holds -> Samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from snowsdeploy.data.digest import tensors_digest
from snowsdeploy.data.samples import Decoded, Samples
from snowsdeploy.errors import DataError
from snowsdeploy.values import DataInfo

IN_MEMORY = " in memory"  # ends the name of such data in a report
_ALLOWED = (
    "a tensor [n, C, H, W] of floats as the model takes them, (tensor, labels), a torch Dataset of (image, label), or "
    "an iterable of batches; labels are whole numbers"
)


def hold(data: object, *, option: str, at_most: int | None = None, seed: int = 0) -> Samples:
    """Read what a caller gave; inputs are float32 `[n, C, H, W]` on the CPU, in their order.

    Args:
        data: A tensor or array, `(inputs, labels)`, a torch `Dataset`, an iterable of batches, or `Samples`.
        option: The argument's name, for messages.
        at_most: How many items are needed: of a data set so many at random, of other iterables the first.
        seed: Of the random choice.

    Raises:
        DataError: It is something else, is empty, or does not hold finite images.
    """
    if isinstance(data, Samples):
        return data
    if isinstance(data, Tensor | np.ndarray):
        return _held([(data, None)], _name(data), option)
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Tensor | np.ndarray):
        return _held([(data[0], data[1])], _name(data[0]), option)
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return _held(_items(data, at_most, seed), f"{type(data).__name__} of {_size(data)} items", option)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | dict):
        return _held(_batches(data, at_most, option), type(data).__name__, option)
    raise DataError(f"{option} is nothing that images can be read from", seen=type(data).__name__, allowed=_ALLOWED)


def _name(x: Tensor | NDArray[Any]) -> str:
    kind = "tensor" if isinstance(x, Tensor) else "array"
    return f"{kind} {'x'.join(map(str, x.shape))}"


def _size(data: Dataset[Any]) -> int:
    return len(data)  # type: ignore[arg-type]  # a map-style data set has a length, which its base class does not say


def _items(data: Dataset[Any], at_most: int | None, seed: int) -> Iterator[tuple[Any, Any]]:
    """Single items as batches of one."""
    size = _size(data)
    chosen = range(size) if at_most is None else np.random.default_rng(seed).permutation(size)[:at_most]
    for index in chosen:
        x, y = _pair(data[int(index)])
        yield _tensor(x, "an image of the data set")[None], None if y is None else [y]


def _batches(data: Iterable[Any], at_most: int | None, option: str) -> Iterator[tuple[Any, Any]]:
    count = 0
    for batch in data:
        x, y = _pair(batch)
        if not isinstance(x, Tensor | np.ndarray):
            raise DataError(f"a batch of {option} is no tensor", seen=type(x).__name__, allowed=_ALLOWED)
        left = None if at_most is None else at_most - count
        yield x[:left], None if y is None else y[:left]
        count += len(x)
        if at_most is not None and count >= at_most:
            return


def _pair(item: Any) -> tuple[Any, Any]:  # noqa: ANN401 - whatever a data set gives
    if isinstance(item, tuple | list):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _held(parts: Iterable[tuple[Any, Any]], name: str, option: str) -> Samples:
    xs: list[Tensor] = []
    ys: list[NDArray[np.int64] | None] = []
    for x, y in parts:
        xs.append(_inputs(x, option))
        ys.append(None if y is None else _labels(y, len(xs[-1]), option))
    if not xs or not sum(map(len, xs)):
        raise DataError(f"{option} holds no image", seen=name, allowed=_ALLOWED)
    if len({tuple(x.shape[1:]) for x in xs}) > 1:
        sizes = sorted({"x".join(map(str, x.shape[1:])) for x in xs})
        raise DataError(f"the images of {option} differ in size", seen=", ".join(sizes[:4]), allowed="one size")
    labels = [y for y in ys if y is not None]
    if labels and len(labels) < len(ys):
        raise DataError(f"only some batches of {option} have labels", seen=f"{len(labels)} of {len(ys)}")
    x = xs[0] if len(xs) == 1 else torch.cat(xs)
    if not bool(torch.isfinite(x).all()):
        raise DataError(f"{option} holds NaN or Inf", seen=f"{int((~torch.isfinite(x)).sum())} values")
    return _samples(x, np.concatenate(labels) if labels else None, f"{name}{IN_MEMORY}")


def _samples(x: Tensor, y: NDArray[np.int64] | None, source: str) -> Samples:
    origin = tensors_digest({"images": x})  # the same images, with labels or without
    digest = sha256(origin.encode() + (b"" if y is None else y.tobytes())).hexdigest()
    info = DataInfo(source=source, items=len(x), labelled=y is not None, origin=origin, fingerprint=digest)
    return Samples(lambda items: x[list(items)], tuple(range(len(x))), y, info, Decoded.of(x))


def _inputs(x: Any, option: str) -> Tensor:  # noqa: ANN401 - a tensor or an array
    tensor = _tensor(x, option).detach()
    if tensor.dim() != 4 or not tensor.is_floating_point():
        seen = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
        fix = "scale and normalise the images as in training" if tensor.dim() == 4 else None
        raise DataError(f"{option} does not hold images as the model takes them", seen=seen, allowed=_ALLOWED, fix=fix)
    return tensor.to("cpu", torch.float32).contiguous()


def _tensor(x: Any, what: str) -> Tensor:  # noqa: ANN401 - whatever a data set gives
    try:
        return torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{what} is no tensor",
            seen=type(x).__name__,
            allowed=_ALLOWED,
            fix="give the data set the transform that it has in evaluation",
        ) from error


def _labels(y: Any, count: int, option: str) -> NDArray[np.int64]:  # noqa: ANN401 - numbers in any form
    if isinstance(y, list | tuple):
        y = [label.cpu() if isinstance(label, Tensor) else label for label in y]
    values = np.asarray(y.cpu() if isinstance(y, Tensor) else y)
    if values.shape != (count,) or not np.issubdtype(values.dtype, np.integer) or (values < 0).any():
        raise DataError(
            f"the labels of {option} do not fit its images",
            seen=f"{values.dtype} {list(values.shape)} beside {count} images",
            allowed="a whole number from 0 on for each image",
        )
    return values.astype(np.int64)
