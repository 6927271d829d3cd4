"""Data sets that timm knows by name; the only data source that may use the network, because the user named it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snowsdeploy.artifacts import Preprocessing
from snowsdeploy.data.files import evaluation_transform
from snowsdeploy.errors import DataError


@dataclass(frozen=True)
class NamedData:
    """An indexable timm data set."""

    read: Callable[[Sequence[int]], Tensor]
    size: int
    labels: NDArray[np.int64] | None


def open_named(name: str, preprocessing: Preprocessing, option: str) -> NamedData:
    """Open `timm.data.create_dataset(name)`; a `:split` may follow the name.

    Raises:
        DataError: timm cannot create it.
    """
    from timm.data import create_dataset  # noqa: PLC0415 - imports torchvision

    base, _, split = name.partition(":")
    try:
        data = create_dataset(base, root=None, split=split or "validation", download=True)
        size = len(data)
        labels = np.array([int(data[i][1]) for i in range(size)], dtype=np.int64)
    except Exception as error:  # timm, torchvision and hubs raise many types
        raise DataError(
            f"{option} is neither a path that exists nor a data set that timm can open",
            seen=f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}",
            allowed="a folder of images, an .npz file, or a name of timm.data.create_dataset such as torch/cifar10",
            fix="check the path",
        ) from error
    transform = evaluation_transform(preprocessing)
    mode = "L" if preprocessing.input_size[0] == 1 else "RGB"

    def read(indices: Sequence[int]) -> Tensor:
        return torch.stack([transform(data[i][0].convert(mode)) for i in indices])

    return NamedData(read, size, labels)
