"""Data source string -> Samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from snowsdeploy.batch import Batch
from snowsdeploy.data.arrays import array_reader, array_size, holds_reals, load_arrays
from snowsdeploy.data.files import (
    SUFFIXES,
    file_reader,
    files_digest,
    list_images,
    require_images,
    require_readable,
)
from snowsdeploy.data.named import PREFIXES, open_named
from snowsdeploy.data.named_arrays import array_headers, array_inputs, load_named_arrays, named_reader
from snowsdeploy.data.samples import Samples
from snowsdeploy.data.selection import parse_selection
from snowsdeploy.errors import DataError
from snowsdeploy.files import require_regular
from snowsdeploy.values import DataInfo, InputInfo, Preprocessing


@dataclass(frozen=True)
class Source:
    """Everything behind a data source before items are chosen.

    Attributes:
        read: As in `Samples`.
        size: Number of items.
        labels: Targets of items: class indices, masks or images; None without.
        identity: Differs between sources that hold other items.
        check: Looks at the chosen items before they are needed.
        classes: As in `Samples`.
        content: As in `Samples`.
    """

    read: Callable[[Sequence[int]], Batch]
    size: int
    labels: Callable[[Sequence[int]], NDArray[Any]] | None
    identity: str
    check: Callable[[Sequence[int]], None] | None = None
    classes: tuple[str, ...] = ()
    content: Callable[[Sequence[int]], str] | None = None


def open_samples(
    text: str, preprocessing: Preprocessing | None, inputs: Sequence[InputInfo] = (), *, option: str = "--data"
) -> Samples:
    """Open an ImageFolder, a flat folder, an `.npz`, or a timm data set name, with an optional slice behind it.

    Labels of an ImageFolder count all its class folders, whatever the slice selects.

    Args:
        text: What the user typed.
        preprocessing: How images become inputs; None where the model takes arrays as they are.
        inputs: What it takes then, by name.
        option: The option it was given by, for messages.

    Raises:
        DataError: Missing, empty, unreadable, or not fitting the model's input.
    """
    selection = parse_selection(text)
    source = _open(selection.source, preprocessing, inputs, option)
    indices = selection.indices(source.size)
    if source.check is not None:
        source.check(indices)
    labels = None if source.labels is None else source.labels(indices)
    origin = sha256(source.identity.encode(errors="surrogateescape")).hexdigest()
    prepared = "as they are" if preprocessing is None else preprocessing.model_dump_json()
    digest = sha256(f"{origin}{indices}{prepared}".encode()).hexdigest()
    shown = text.encode(errors="surrogateescape").decode(errors="replace")  # a name need not be UTF-8
    info = DataInfo(source=shown, items=len(indices), labelled=labels is not None, origin=origin, fingerprint=digest)
    return Samples(source.read, indices, labels, info, classes=source.classes, content=source.content)


def _open(name: str, preprocessing: Preprocessing | None, inputs: Sequence[InputInfo], option: str) -> Source:
    path = _require_source(name, option)
    if path.suffix == ".npz" and path.is_file() and (preprocessing is None or len(inputs) > 1):
        found, count = load_named_arrays(path, inputs)
        return Source(named_reader(found.x), count, _indexed(found.y), found.sha256)
    if preprocessing is None or len(inputs) > 1:
        raise DataError(
            f"{option} gives no values for the model's inputs",
            seen=name,
            allowed=f"an .npz file with the arrays {', '.join(map(str, inputs))}, or module:factory",
            fix="store each input as an array under its name",
        )
    if not preprocessing.known and not holds_inputs(name):
        raise DataError(
            f"nothing says how the images of {option} become the model's input",
            seen=f"{name}, beside values that the model takes as they are",
            allowed="an .npz file with real numbers [n, C, H, W] as x",
            fix="add --mean and --std",
        )
    if path.is_dir():
        return _open_folder(path, preprocessing)
    if path.suffix == ".npz" and path.is_file():
        arrays = load_arrays(path, preprocessing)
        return Source(array_reader(arrays.x, preprocessing), len(arrays.x), _indexed(arrays.y), arrays.sha256)
    named = open_named(name, preprocessing, option)
    return Source(named.read, named.size, named.labels, name)


def require_source(text: str, option: str) -> None:
    """Refuse what cannot be a data source, before anything is asked about its images.

    Args:
        text: What the user typed.
        option: The option it was given by, for messages.

    Raises:
        DataError: It does not exist, is of an unknown kind, is empty, cannot be read, or has a malformed slice.
    """
    path = _require_source(parse_selection(text).source, option)
    if path.is_dir():
        require_images(path)
    elif path.is_file():
        array_headers(path)


def _require_source(name: str, option: str) -> Path:
    path = Path(name)
    if path.is_dir():
        return path
    require_regular(path, f"{option} is no file or folder", DataError)
    if path.exists() and path.suffix != ".npz":
        raise DataError(
            f"{option} is a file of an unknown kind",
            seen=path,
            allowed="a folder of images, an .npz file",
            fix=_instead(path),
        )
    if not path.exists() and not name.startswith(PREFIXES):
        raise DataError(
            f"{option} does not exist",
            seen=path,
            allowed="a folder of images, an .npz file, a timm data set name like torch/cifar10, or module:factory",
            fix="check the path",
        )
    return path


def _instead(path: Path) -> str:
    """What to do with a file that is no data source."""
    if path.suffix == ".npy":
        return f"numpy.savez('{path.stem}.npz', x=numpy.load('{path.name}'))"
    if path.suffix.lower() in SUFFIXES:
        return f"pass the folder that holds it: {path.parent}"
    return "unpack an archive first, and pass the folder"


def _open_folder(folder: Path, preprocessing: Preprocessing) -> Source:
    files = list_images(folder)
    return Source(
        read=file_reader(files.paths, preprocessing),
        size=len(files.paths),
        labels=_indexed(files.labels),
        identity="\n".join(f"{p.relative_to(folder)} {p.stat().st_size}" for p in files.paths),
        check=lambda indices: require_readable([files.paths[i] for i in indices]),
        classes=files.classes,
        content=lambda indices: files_digest([files.paths[i] for i in indices]),
    )


def _indexed(labels: NDArray[Any] | None) -> Callable[[Sequence[int]], NDArray[Any]] | None:
    return None if labels is None else lambda indices: labels[list(indices)]


def natural_input_size(text: str) -> tuple[int, int, int] | None:
    """Channels, height, width of an `.npz` file's images; None for sources that are resized anyway.

    Raises:
        DataError: The file cannot be read.
    """
    path = Path(parse_selection(text).source)
    return array_size(path) if path.suffix == ".npz" and path.is_file() else None


def holds_inputs(text: str) -> bool:
    """Whether it is an `.npz` file whose images are what a model takes: real numbers, in no need of mean or deviation.

    Raises:
        DataError: The file cannot be read.
    """
    path = Path(parse_selection(text).source)
    return path.suffix == ".npz" and path.is_file() and holds_reals(path)


def natural_inputs(text: str, names: Sequence[str]) -> tuple[InputInfo, ...] | None:
    """What an `.npz` file holds under the names of a model's inputs; None for images.

    Raises:
        DataError: The file cannot be read.
    """
    path = Path(parse_selection(text).source)
    return array_inputs(path, names) if path.suffix == ".npz" and path.is_file() else None
