"""What a conversion gives."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

Images = NDArray[np.float32]
ASKED = "asked for by --keep-fp32"


@dataclass(frozen=True)
class Converted:
    """A model in another precision.

    Attributes:
        model: The model, with FP32 inputs and outputs.
        kept: Nodes left in FP32 -> why.
    """

    model: ModelProto
    kept: dict[str, str] = field(default_factory=dict)
