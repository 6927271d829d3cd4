"""What a conversion gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray
from onnx import ModelProto

# Of a model with one input its array; else name -> array.
Images: TypeAlias = NDArray[Any] | Mapping[str, NDArray[Any]]
ASKED = "asked for by --keep-fp32"


def named(images: Images, name: str) -> dict[str, NDArray[Any]]:
    """By the names of the model's inputs, of which a single one is called so."""
    return dict(images) if isinstance(images, Mapping) else {name: images}


@dataclass(frozen=True)
class Converted:
    """A model in another precision.

    Attributes:
        model: The model, with FP32 inputs and outputs.
        kept: Nodes left in FP32 -> why.
    """

    model: ModelProto
    kept: dict[str, str] = field(default_factory=dict)
