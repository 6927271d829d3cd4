"""Image files: an ImageFolder with one folder a class, or a flat folder without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from snowsdeploy.errors import DataError
from snowsdeploy.values import Preprocessing

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"}
_THREADS = 4
# What Pillow raises for damaged files: SyntaxError comes from its PNG reader.
_UNREADABLE = (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageFiles:
    """Paths in sorted order; labels are the sorted index of the class folder, None in a flat folder."""

    paths: tuple[Path, ...]
    labels: NDArray[np.int64] | None


def list_images(folder: Path) -> ImageFiles:
    """List a folder.

    Raises:
        DataError: It holds no image.
    """
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    grouped = [sorted(p for p in c.rglob("*") if _is_image(p)) for c in classes]
    flat = sorted(p for p in folder.iterdir() if _is_image(p))
    if any(grouped) and flat:
        raise DataError(
            "the data folder holds images both in class folders and beside them",
            seen=f"{flat[0]} (and {len(flat) - 1} more) beside {classes[0].name}/",
            allowed="folder/class/image, or folder/image without labels",
            fix="move one kind elsewhere",
        )
    if any(grouped):
        # A folder without images still is a class, as in torchvision's ImageFolder with allow_empty.
        labels = np.repeat(np.arange(len(classes)), [len(g) for g in grouped]).astype(np.int64)
        return ImageFiles(tuple(p for g in grouped for p in g), labels)
    if not flat:
        raise DataError(
            "the data folder holds no image",
            seen=folder,
            allowed=f"folder/class/image or folder/image with {', '.join(sorted(SUFFIXES))}",
            fix="check the path",
        )
    return ImageFiles(tuple(flat), None)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def evaluation_transform(preprocessing: Preprocessing) -> Any:  # noqa: ANN401 - a torchvision transform, untyped
    """Timm's evaluation transform: resize, centre crop, tensor, normalise."""
    from timm.data import create_transform  # noqa: PLC0415 - imports torchvision, seconds that .npz users need not pay

    return create_transform(
        input_size=preprocessing.input_size,
        is_training=False,
        mean=preprocessing.mean,
        std=preprocessing.std,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
    )


def image_mode(preprocessing: Preprocessing) -> str:
    """Pillow's mode for the model's number of channels.

    Raises:
        DataError: Image files have one channel or three.
    """
    channels = preprocessing.input_size[0]
    if channels not in (1, 3):
        raise DataError(
            "the model's input is no grey or colour image",
            seen=f"{channels} channels",
            allowed="1 or 3 channels for image files",
            fix="pass an .npz file with x as float [n, C, H, W]",
        )
    return "L" if channels == 1 else "RGB"


def file_reader(paths: Sequence[Path], preprocessing: Preprocessing) -> Callable[[Sequence[int]], Tensor]:
    """Decode and transform image files, several at a time, in the order asked for.

    Raises:
        DataError: The model's input has neither one channel nor three.
    """
    mode = image_mode(preprocessing)
    transform = evaluation_transform(preprocessing)

    def one(index: int) -> Tensor:
        with _open(paths[index]) as image:
            try:
                tensor = transform(image.convert(mode))
            except _UNREADABLE as error:
                raise _unreadable(paths[index], error) from error
        assert isinstance(tensor, Tensor)
        return tensor

    def read(indices: Sequence[int]) -> Tensor:
        with ThreadPoolExecutor(_THREADS) as pool:
            return torch.stack(list(pool.map(one, indices)))

    return read


def require_readable(paths: Sequence[Path]) -> None:
    """Read every file's header, so that a broken file is known before anything else is done.

    Raises:
        DataError: A file is no image that can be read.
    """

    def check(path: Path) -> None:
        _open(path).close()

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(check, paths))


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError("an image cannot be read", seen=f"{path}: {error}", fix="remove or replace the file")
