"""Data source string -> ImageSet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from snowsdeploy.artifacts import DataInfo, Preprocessing
from snowsdeploy.data.arrays import array_reader, load_arrays
from snowsdeploy.data.files import file_reader, list_images
from snowsdeploy.data.images import ImageSet
from snowsdeploy.data.named import open_named
from snowsdeploy.data.selection import Selection, parse_selection
from snowsdeploy.errors import DataError


@dataclass(frozen=True)
class Source:
    """Everything behind a data source before items are chosen."""

    read: Callable[[Sequence[int]], Tensor]
    size: int
    labels: NDArray[np.int64] | None
    identity: str


def open_images(text: str, preprocessing: Preprocessing, *, option: str = "--data") -> ImageSet:
    """Open an ImageFolder, a flat folder, an `.npz`, or a timm data set name, with an optional slice behind it.

    Args:
        text: What the user typed.
        preprocessing: How items become inputs.
        option: The option it was given by, for messages.

    Raises:
        DataError: Missing, empty, unreadable, or not fitting the model's input.
    """
    selection = parse_selection(text)
    source = _open(selection, preprocessing, option)
    indices = selection.indices(source.size)
    origin = sha256(source.identity.encode()).hexdigest()
    digest = sha256(f"{origin}{indices}{preprocessing.model_dump_json()}".encode()).hexdigest()
    labels = None if source.labels is None else source.labels[list(indices)]
    info = DataInfo(source=text, items=len(indices), labelled=labels is not None, origin=origin, fingerprint=digest)
    return ImageSet(source.read, indices, labels, info)


def _open(selection: Selection, preprocessing: Preprocessing, option: str) -> Source:
    path = Path(selection.source)
    if path.is_dir():
        files = list_images(path)
        identity = "\n".join(f"{p.relative_to(path)} {p.stat().st_size}" for p in files.paths)
        return Source(file_reader(files.paths, preprocessing), len(files.paths), files.labels, identity)
    if path.suffix == ".npz":
        arrays = load_arrays(path, preprocessing)
        return Source(array_reader(arrays.x, preprocessing), len(arrays.x), arrays.y, arrays.sha256)
    if path.exists():
        raise DataError(f"{option} is a file of an unknown kind", seen=path, allowed="a folder of images, an .npz file")
    if (
        "/" in selection.source
        and path.parent.exists()
        and not selection.source.startswith(("hfds/", "torch/", "tfds/"))
    ):
        raise DataError(f"{option} does not exist", seen=path, fix="check the path")
    named = open_named(selection.source, preprocessing, option)
    return Source(named.read, named.size, named.labels, selection.source)


def natural_input_size(text: str) -> tuple[int, int, int] | None:
    """Channels, height, width of an `.npz` file's images; None for sources that are resized anyway.

    Raises:
        DataError: The file cannot be read.
    """
    path = Path(parse_selection(text).source)
    if path.suffix != ".npz" or not path.exists():
        return None
    return load_arrays(path, None).size
