"""The ONNX file that a program was imported from: what new weights are written into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx import ModelProto
from torch import Tensor

from snowsdeploy.models.onnx.origin import Origin
from snowsdeploy.models.onnx.write_back import with_values


@dataclass(frozen=True)
class OnnxFile:
    """A user's model, and where each of a program's tensors lies in it.

    Attributes:
        model: As it was read, with its external tensors.
        origins: For each key of the program's state dict, the tensor of the file.
        layers: For the key of each product's weight, the layer's name in reports: what the layout check calls it.
    """

    model: ModelProto = field(repr=False)
    origins: Mapping[str, Origin] = field(repr=False)
    layers: Mapping[str, str] = field(repr=False)

    def with_state(self, state: Mapping[str, Tensor]) -> ModelProto:
        """The model with a program's tensors; where they are those of the file, its bytes stay as they are.

        Args:
            state: By key of the program's state dict, each of which has an origin.

        Raises:
            ExportError: A tensor has another shape than that of the file.
        """
        return with_values(self.model, state, self.origins)
