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

from snowsdeploy.artifacts import Preprocessing
from snowsdeploy.errors import DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"}
_THREADS = 4


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
    grouped = [sorted(p for p in c.rglob("*") if p.suffix.lower() in SUFFIXES) for c in classes]
    if any(grouped):
        # A folder without images still is a class, as in torchvision's ImageFolder with allow_empty.
        labels = np.repeat(np.arange(len(classes)), [len(g) for g in grouped]).astype(np.int64)
        return ImageFiles(tuple(p for g in grouped for p in g), labels)
    flat = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not flat:
        raise DataError(
            "the data folder holds no image",
            seen=folder,
            allowed=f"folder/class/image or folder/image with {', '.join(sorted(SUFFIXES))}",
            fix="check the path",
        )
    return ImageFiles(tuple(flat), None)


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


def file_reader(paths: Sequence[Path], preprocessing: Preprocessing) -> Callable[[Sequence[int]], Tensor]:
    """Decode and transform image files, several at a time, in the order asked for."""
    transform = evaluation_transform(preprocessing)
    mode = "L" if preprocessing.input_size[0] == 1 else "RGB"

    def one(index: int) -> Tensor:
        try:
            with Image.open(paths[index]) as image:
                tensor = transform(image.convert(mode))
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise DataError(
                "an image cannot be read", seen=f"{paths[index]}: {error}", fix="remove or replace the file"
            ) from error
        assert isinstance(tensor, Tensor)
        return tensor

    def read(indices: Sequence[int]) -> Tensor:
        with ThreadPoolExecutor(_THREADS) as pool:
            return torch.stack(list(pool.map(one, indices)))

    return read
