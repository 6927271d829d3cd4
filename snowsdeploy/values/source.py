"""Where model and images came from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from snowsdeploy.values.base import Artifact
from snowsdeploy.values.numbers import Above0, Count, Flag, Number, Size, require_ordered


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

    input_size: tuple[Size, Size, Size]
    mean: tuple[Number, ...]
    std: tuple[Above0, ...]
    interpolation: str = "bicubic"
    crop_pct: Above0 = 0.875
    crop_mode: str = "center"
    known: Flag = True


DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


class InputInfo(Artifact):
    """One input of a model.

    Attributes:
        name: In data, in ONNX files and in reports.
        shape: Of one item: the batch axis is left out.
        dtype: torch's name of its type, such as float32 or int64.
    """

    name: str
    shape: tuple[Count, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        """`image 3x224x224`."""
        sizes = "x".join(map(str, self.shape)) or "one number"
        return f"{self.name} {sizes}" + ("" if self.dtype == "float32" else f" {self.dtype}")


class DynamicAxis(Artifact):
    """An axis of an input, beside the batch, that may vary.

    Attributes:
        input: Name.
        axis: Its place; 0 is the batch.
        name: In the ONNX file.
        smallest: Allowed size; None where nothing is said.
        largest: Likewise.
    """

    input: str
    axis: Count
    name: str
    smallest: Count | None = None
    largest: Count | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.smallest is not None and self.largest is not None:
            require_ordered(smallest=self.smallest, largest=self.largest)
        return self


class ModelSignature(Artifact):
    """What a model takes and gives.

    Attributes:
        inputs: In order.
        outputs: Names, in order.
        batch: How many items it takes at once, where it takes no other number.
        dynamic: Axes that may vary beside the batch.
    """

    inputs: Annotated[tuple[InputInfo, ...], Field(min_length=1)]
    outputs: Annotated[tuple[str, ...], Field(min_length=1)]
    batch: Size | None = None
    dynamic: tuple[DynamicAxis, ...] = ()

    @property
    def traced_sizes(self) -> dict[str, int]:
        """Of the axes that may vary, by name: the size that the model was traced with."""
        shapes = {info.name: info.shape for info in self.inputs}
        return {axis.name: shapes[axis.input][axis.axis - 1] for axis in self.dynamic}

    def __str__(self) -> str:
        """`takes image 3x224x224; gives scores, boxes`."""
        fixed = "" if self.batch is None else f", {self.batch} items at once and no other number"
        fixed += f", {' and '.join(dict.fromkeys(a.name for a in self.dynamic))} may vary" if self.dynamic else ""
        return f"takes {', '.join(map(str, self.inputs))}{fixed}; gives {', '.join(self.outputs)}"


class SourceInfo(Artifact):
    """Where the model came from.

    Attributes:
        source: A path or a name.
        format: What it is.
        arch: Its architecture.
        sha256: Of the checkpoint file, or of a Python object's tensors.
        weights: Which state dict of the file was taken and what was removed from its names; None for a plain one.
        remarks: What was changed in the model before it was traced.
    """

    source: str
    format: Literal["checkpoint", "safetensors", "pt2", "onnx", "timm", "factory", "module", "program"]
    arch: str | None = None
    sha256: str | None = None
    weights: str | None = None
    remarks: tuple[str, ...] = ()


class DataInfo(Artifact):
    """Which images were used.

    Attributes:
        source: What the user typed.
        items: How many.
        labelled: Whether there are labels.
        origin: Identifies the source behind any slice.
        fingerprint: Identifies the items and the preprocessing, in order.
        content: Digest of the items' files, in order; None where the origin is of the content.
    """

    source: str
    items: Size
    labelled: Flag
    origin: str
    fingerprint: str
    content: str | None = None
