"""Tensors, data sets and batches that a Python program holds -> Samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from snowsdeploy.batch import Batch, Inputs
from snowsdeploy.data.digest import tensors_digest
from snowsdeploy.data.finite import not_finite
from snowsdeploy.data.samples import Decoded, Samples
from snowsdeploy.data.targets import as_objects, targets_digest, targets_of
from snowsdeploy.errors import DataError
from snowsdeploy.user_code import UserCodeError, contained, contained_items
from snowsdeploy.values import DataInfo

IN_MEMORY = " in memory"  # ends the name of such data in a report
_ALLOWED = (
    "tensors as the model takes them, (tensor, labels), a torch Dataset of (input, label), or an iterable of batches; "
    "several inputs in a dict or tuple; targets are classes, masks, images, or a list with a value for each item"
)
LABELS = ("y", "label", "labels", "target", "targets")


@dataclass(frozen=True)
class Names:
    """How the inputs of a model are called.

    Attributes:
        all: In order.
        required: How many of the first must be there.
        raw: Whether pixels are taken as they are: the user says that the model takes whole numbers.
    """

    all: tuple[str, ...] = ("input",)
    required: int = 1
    raw: bool = False


def hold(
    data: object, *, option: str, names: Names | None = None, at_most: int | None = None, seed: int = 0
) -> Samples:
    """Read what a caller gave; inputs are on the CPU, in their order.

    Args:
        data: A tensor or array, `(inputs, labels)`, a dict of inputs, a torch `Dataset`, an iterable of batches, or
            `Samples`.
        option: The argument's name, for messages.
        names: Of the model's inputs; one without.
        at_most: How many items are needed: of a data set so many at random, of other iterables the first.
        seed: Of the random choice.

    Raises:
        DataError: It is something else, is empty, or does not hold finite values.
    """
    if isinstance(data, Samples):
        return data
    try:
        return _held(data, option=option, names=names, at_most=at_most, seed=seed)
    except UserCodeError as error:
        raise DataError(error.what, seen=error.seen, allowed=error.allowed, fix=error.fix) from error


def _held(data: object, *, option: str, names: Names | None, at_most: int | None, seed: int) -> Samples:
    reader = _Reader(names or Names(), option)
    if isinstance(data, Tensor | np.ndarray):
        return reader.held([(data, None)], _name(data))
    if isinstance(data, dict) and data:
        return reader.held([reader.pair(data)], f"dict of {len(data)} arrays")
    if isinstance(data, tuple) and 1 < len(data) <= len(reader.names.all) + 1 and _all_arrays(data):
        return reader.held([reader.pair(data)], _name(data[0]))
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return reader.held(_items(data, reader, at_most, seed), f"{type(data).__name__} of {_size(data)} items")
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | dict):
        return reader.held(_batches(data, reader, at_most), type(data).__name__)
    raise DataError(
        f"{option} is nothing that inputs can be read from",
        seen=f"an empty {type(data).__name__}" if isinstance(data, dict) else type(data).__name__,
        allowed=_ALLOWED,
        fix=f"pass {option} as one of these",
    )


def _all_arrays(values: tuple[Any, ...]) -> bool:
    return isinstance(values[0], Tensor | np.ndarray | dict | tuple)


def _name(x: Any) -> str:  # noqa: ANN401 - whatever a caller gave
    if not isinstance(x, Tensor | np.ndarray):
        return f"{type(x).__name__} of {len(x)} arrays"
    kind = "tensor" if isinstance(x, Tensor) else "array"
    return f"{kind} {'x'.join(map(str, x.shape))}"


def _size(data: Dataset[Any]) -> int:
    with contained("len of the data set"):
        return len(data)  # type: ignore[arg-type]  # a map-style data set has a length, as its base class does not say


def _items(data: Dataset[Any], reader: _Reader, at_most: int | None, seed: int) -> Iterator[tuple[Any, Any]]:
    """Single items as batches of one."""
    size = _size(data)
    chosen = range(size) if at_most is None else np.random.default_rng(seed).permutation(size)[:at_most]
    for index in chosen:
        with contained(f"item {index} of {reader.option}"):
            item = data[int(index)]
        x, y = reader.pair(item)
        one = {n: _tensor(v, "an input of the data set")[None] for n, v in reader.named(x).items()}
        yield one, None if y is None else [y]


def _batches(data: Iterable[Any], reader: _Reader, at_most: int | None) -> Iterator[tuple[Any, Any]]:
    count = 0
    for batch in contained_items(reader.option, data):
        x, y = reader.pair(batch)
        left = None if at_most is None else at_most - count
        part = {name: value[:left] for name, value in reader.named(x).items()}
        yield part, {k: v[:left] for k, v in y.items()} if isinstance(y, Mapping) else None if y is None else y[:left]
        count += len(next(iter(part.values())))
        if at_most is not None and count >= at_most:
            return


@dataclass(frozen=True)
class _Reader:
    """Takes inputs and labels out of items and batches of any form."""

    names: Names
    option: str

    def pair(self, item: Any) -> tuple[Any, Any]:  # noqa: ANN401 - whatever a data set gives
        """Inputs, and labels or None."""
        known = self.names.all
        if isinstance(item, Mapping):
            label = next((key for key in LABELS if key in item and key not in known), None)
            inputs = {n: item[n] for n in known if n in item} or {k: v for k, v in item.items() if k != label}
            return inputs, None if label is None else item[label]
        if not isinstance(item, tuple | list):
            return item, None
        if len(item) == 2 and isinstance(item[0], Mapping | tuple | list):
            return item[0], item[1]
        if len(item) == 1 or len(known) == 1:
            return item[0], item[1] if len(item) > 1 else None
        count = len(item) if len(item) <= self.names.required else len(item) - 1
        return tuple(item[:count]), item[count] if count < len(item) else None

    def named(self, x: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
        """Inputs by their names."""
        known = self.names.all
        if isinstance(x, Mapping):
            found = {str(name): value for name, value in x.items()}
        elif isinstance(x, tuple | list):
            found = dict(zip(known, x, strict=False)) if len(x) <= len(known) else {}
        else:
            found = {known[0]: x}
        wrong = next((v for v in found.values() if not isinstance(v, Tensor | np.ndarray | int | float)), None)
        if not found or wrong is not None:
            seen = type(wrong).__name__ if found else f"{len(x)} values for {len(known)} inputs"
            raise DataError(
                f"a batch of {self.option} is no tensor",
                seen=seen,
                allowed=_ALLOWED,
                fix=f"let each batch hold tensors for {', '.join(known)}",
            )
        return found

    def held(self, parts: Iterable[tuple[Any, Any]], name: str) -> Samples:
        """All of them in memory."""
        xs: list[dict[str, Tensor]] = []
        ys: list[NDArray[Any] | None] = []
        for x, y in parts:
            xs.append({n: self._inputs(value) for n, value in self.named(x).items()})
            count = self._count(xs[-1])
            ys.append(None if y is None else targets_of(y, count, self.option))
        if not xs or not sum(map(self._count, xs)):
            raise DataError(
                f"{self.option} holds no image",
                seen=name,
                allowed=f"at least one item: {_ALLOWED}",
                fix="check that the data set is not empty, and that its iterator is not used up",
            )
        keys = list(xs[0])
        if any(list(x) != keys for x in xs):
            raise DataError(
                f"the batches of {self.option} differ in their inputs",
                seen=f"{name}: {', '.join(next(list(x) for x in xs if list(x) != keys))}",
                allowed=f"those of the first batch, in its order: {', '.join(keys)}",
                fix="give every batch the same inputs",
            )
        joined = {key: self._joined([x[key] for x in xs]) for key in keys}
        labels = [y for y in ys if y is not None]
        if labels and len(labels) < len(ys):
            raise DataError(
                f"only some batches of {self.option} have labels",
                seen=f"{len(labels)} of {len(ys)} batches",
                allowed="labels in every batch, or in none",
                fix="add the labels that are missing, or leave all of them out",
            )
        batch = Inputs(joined) if len(joined) > 1 else joined[keys[0]]
        return _samples(batch, _all_targets(labels) if labels else None, f"{name}{IN_MEMORY}")

    def _count(self, tensors: Mapping[str, Tensor]) -> int:
        counts = {len(tensor) for tensor in tensors.values()}
        if len(counts) > 1:
            seen = ", ".join(f"{name} {len(tensor)}" for name, tensor in tensors.items())
            raise DataError(
                f"the inputs of {self.option} differ in length",
                seen=seen,
                allowed="as many items in each input, along its first axis",
                fix="give every input the same items",
            )
        return counts.pop()

    def _joined(self, tensors: list[Tensor]) -> Tensor:
        if len({tuple(x.shape[1:]) for x in tensors}) > 1:
            sizes = sorted({"x".join(map(str, x.shape[1:])) for x in tensors})
            raise DataError(
                f"the images of {self.option} differ in size",
                seen=", ".join(sizes[:4]),
                allowed="one size for all",
                fix="resize or pad them to the model's input size",
            )
        x = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        if not bool(torch.isfinite(x).all()):
            raise not_finite(self.option, int((~torch.isfinite(x)).sum()), x.numel())
        return x

    def _inputs(self, x: Any) -> Tensor:  # noqa: ANN401 - a tensor or an array
        tensor = _tensor(x, self.option).detach()
        pixels = tensor.dim() in (3, 4) and tensor.dtype == torch.uint8 and not self.names.raw
        if not tensor.dim() or pixels:
            seen = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            fix = "scale and normalise the images as in training" if pixels else "add the axis of the batch: x[None]"
            what = f"{self.option} does not hold inputs as the model takes them"
            raise DataError(what, seen=seen, allowed=_ALLOWED, fix=fix)
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        return tensor.to("cpu", dtype).contiguous()


def _samples(batch: Batch, y: NDArray[Any] | None, source: str) -> Samples:
    tensors = batch.tensors if isinstance(batch, Inputs) else {"images": batch}
    origin = tensors_digest(tensors)  # the same inputs, with labels or without
    digest = sha256(origin.encode() + (b"" if y is None else targets_digest(y))).hexdigest()
    info = DataInfo(source=source, items=len(batch), labelled=y is not None, origin=origin, fingerprint=digest)
    return Samples(lambda items: batch[list(items)], tuple(range(len(batch))), y, info, Decoded.of(batch))


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


def _all_targets(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """One array of those of several batches; of objects where their shapes or types differ."""
    if len({(part.shape[1:], part.dtype.kind) for part in parts}) == 1:
        return np.concatenate(parts)
    return as_objects([value for part in parts for value in part])
