"""Data sets that timm knows by name; the only data source that may use the network, because the user named it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snowsdeploy.data.files import evaluation_transform, image_mode
from snowsdeploy.errors import DataError
from snowsdeploy.values import Preprocessing

# timm's names without one of these are folders, which are read without it.
PREFIXES = ("torch/", "hfds/", "hfids/", "tfds/", "wds/")


@dataclass(frozen=True)
class NamedData:
    """An indexable timm data set; `labels` gives the class indices of items."""

    read: Callable[[Sequence[int]], Tensor]
    size: int
    labels: Callable[[Sequence[int]], NDArray[np.int64]]


def open_named(name: str, preprocessing: Preprocessing, option: str) -> NamedData:
    """Open `timm.data.create_dataset(name)`; a `:split` may follow the name (`validation` when not given).

    Raises:
        DataError: timm cannot create it, or it has no items by index.
    """
    from timm.data import create_dataset  # noqa: PLC0415 - imports torchvision

    mode = image_mode(preprocessing)
    base, _, split = name.partition(":")
    # torchvision's data sets need a folder; this is where torch keeps what it downloads.
    root = str(Path(torch.hub.get_dir()) / "datasets") if base.startswith("torch/") else None
    try:
        data = create_dataset(base, root=root, split=split or "validation", download=True)
        size = len(data)
        data[0]
    except Exception as error:  # timm, torchvision and hubs raise many types
        raise DataError(
            f"{option} names a data set that timm cannot open",
            seen=f"{name}: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}",
            allowed="a folder of images, an .npz file, or an indexable data set like torch/cifar10 or hfds/OWNER/NAME",
            fix="check the name, its split (NAME:SPLIT) and the network",
        ) from error
    transform = evaluation_transform(preprocessing)

    def read(indices: Sequence[int]) -> Tensor:
        return torch.stack([transform(data[i][0].convert(mode)) for i in indices])

    def labels(indices: Sequence[int]) -> NDArray[np.int64]:
        known = getattr(data, "targets", None)  # torchvision's list, without decoding the images
        return np.array([int(known[i] if known is not None else data[i][1]) for i in indices], dtype=np.int64)

    return NamedData(read, size, labels)
