"""Where a tensor of the module came from in the file, and how a new value of it goes back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from snowsdeploy.models.onnx.layouts import TRANSPOSED, Array, Steps, arranged, inverse


@dataclass(frozen=True)
class Origin:
    """The tensor of the file that one entry of the state dict holds.

    Attributes:
        initializer: Name of the initializer; the output's name where a Constant node holds the tensor.
        dtype: NumPy name of the type in the file, such as `float16`.
        steps: What was done to the file's tensor, in order; empty where it is held as it is.
        constant_node: Whether a Constant node holds the tensor.
    """

    initializer: str
    dtype: str = "float32"
    steps: Steps = ()
    constant_node: bool = False

    @property
    def transposed(self) -> bool:
        """Whether the module holds the transpose of the file's matrix, as for the right operand of a MatMul."""
        return self.steps == TRANSPOSED

    def stored(self, value: Array) -> Array:
        """What the file must hold for the module to hold `value`.

        Args:
            value: In the shape of the state dict's entry.
        """
        return np.ascontiguousarray(arranged(value, inverse(self.steps))).astype(np.dtype(self.dtype))
