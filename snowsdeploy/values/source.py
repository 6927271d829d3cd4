"""Where model and images came from."""

from __future__ import annotations

from typing import Literal

from snowsdeploy.values.base import Artifact


class Preprocessing(Artifact):
    """How raw images become the model's input.

    Attributes:
        input_size: Channels, height, width of one input.
        mean: Per-channel mean on [0, 1] pixels.
        std: Per-channel standard deviation on [0, 1] pixels.
        interpolation: Resize filter for image files: bicubic, bilinear or nearest.
        crop_pct: Centre-crop fraction: files are resized to input_size / crop_pct, then centre-cropped.
        crop_mode: timm's crop mode ("center", "squash" or "border").
        known: False where nothing told mean and deviation: images came as the tensors that the model takes.
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"
    known: bool = True


class SourceInfo(Artifact):
    """Where the model came from.

    Attributes:
        source: A path or a name.
        format: What it is.
        arch: Its architecture.
        sha256: Of the checkpoint file, or of a Python object's tensors.
        weights: Which state dict of the file was taken and what was removed from its names; None for a plain one.
    """

    source: str
    format: Literal["checkpoint", "safetensors", "pt2", "timm", "factory", "module", "program"]
    arch: str | None = None
    sha256: str | None = None
    weights: str | None = None


class DataInfo(Artifact):
    """Which images were used.

    Attributes:
        source: What the user typed.
        items: How many.
        labelled: Whether there are labels.
        origin: Identifies the source behind any slice.
        fingerprint: Identifies the items and the preprocessing, in order.
    """

    source: str
    items: int
    labelled: bool
    origin: str
    fingerprint: str
