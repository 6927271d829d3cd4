"""Image files: an ImageFolder with one folder a class, or a flat folder without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from snowsdeploy.errors import DataError, cause
from snowsdeploy.files import reading
from snowsdeploy.values import Preprocessing

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"}
_THREADS = 4
_COARSE = (32, 32)
_PER_GREY = 257  # 65535 / 255


@dataclass(frozen=True)
class ImageFiles:
    """Paths in sorted order; labels are the sorted index of the class folder, None in a flat folder.

    Attributes:
        paths: Of the images.
        labels: Of each, `[len(paths)]`.
        classes: Names of the class folders in their order; those without images count.
    """

    paths: tuple[Path, ...]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] = ()


def list_images(folder: Path) -> ImageFiles:
    """List a folder.

    Raises:
        DataError: It holds no image.
    """
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not _is_hidden(p.name))
    grouped = [sorted(p for p in c.rglob("*") if _is_image(p) and not _in_hidden(p.relative_to(c))) for c in classes]
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
        return ImageFiles(tuple(p for g in grouped for p in g), labels, tuple(c.name for c in classes))
    if not flat:
        raise _no_image(folder)
    return ImageFiles(tuple(flat), None)


def require_images(folder: Path) -> None:
    """Refuse a folder without images; only the first is looked for.

    Raises:
        DataError: It holds none.
    """
    if not any(_is_image(path) and not _in_hidden(path.relative_to(folder)) for path in folder.rglob("*")):
        raise _no_image(folder)


def _no_image(folder: Path) -> DataError:
    return DataError(
        "the data folder holds no image",
        seen=folder,
        allowed=f"folder/class/image or folder/image with {', '.join(sorted(SUFFIXES))}",
        fix="check the path",
    )


def _is_hidden(name: str) -> bool:
    """What programs leave beside images: .git, .ipynb_checkpoints, and __MACOSX from a Mac's zip."""
    return name.startswith(".") or name == "__MACOSX"


def _in_hidden(path: Path) -> bool:
    return any(map(_is_hidden, path.parts))


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
        with _reading(paths[index]), Image.open(paths[index]) as image:
            tensor = transform(_in_eight_bits(image, paths[index]).convert(mode))
        assert isinstance(tensor, Tensor)
        return tensor

    def read(indices: Sequence[int]) -> Tensor:
        with ThreadPoolExecutor(_THREADS) as pool:
            return torch.stack(list(pool.map(one, indices)))

    return read


def files_digest(paths: Sequence[Path]) -> str:
    """SHA-256 over the content of files, in order."""

    def one(path: Path) -> bytes:
        with path.open("rb") as stream:
            return file_digest(stream, "sha256").digest()

    with ThreadPoolExecutor(_THREADS) as pool:
        return sha256(b"".join(pool.map(one, paths))).hexdigest()


def require_readable(paths: Sequence[Path]) -> None:
    """Decode every file coarsely, so that a broken one is known before anything else is done.

    Raises:
        DataError: A file is no image that can be read.
    """

    def check(path: Path) -> None:
        with _reading(path), Image.open(path) as image:
            _require_known_range(image, path)
            image.draft(None, _COARSE)  # a JPEG is decoded at an eighth of its size
            image.load()

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(check, paths))


def _in_eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """16-bit grey scaled to eight bits, which Pillow's own conversion would cut off at 255."""
    _require_known_range(image, path)
    if not _is_sixteen_bits(image):
        return image
    return Image.fromarray(np.round(np.asarray(image).astype(np.float64) / _PER_GREY).astype(np.uint8))


def _is_sixteen_bits(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")  # by Pillow's version


def _require_known_range(image: Image.Image, path: Path) -> None:
    if image.mode in ("I", "F") and not _is_sixteen_bits(image):
        kind = "floats" if image.mode == "F" else "32-bit integers"
        raise DataError(
            "an image does not say which values are black and white",
            seen=f"{path}: pixels are {kind}",
            allowed="8 or 16 bits a channel",
            fix="convert the images, or pass an .npz file with x as the model takes it",
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """The door for image files."""
    with reading(lambda error: _unreadable(path, error)):
        yield


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        "an image cannot be read",
        seen=f"{path}: {cause(error)}",
        allowed="complete image files that Pillow can open",
        fix="remove or replace the file",
    )
