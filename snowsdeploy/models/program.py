"""The one form that every model takes: a `torch.export` ATen program with a dynamic batch dimension."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.export import ExportedProgram

from snowsdeploy.artifacts import Preprocessing, SourceInfo


@dataclass(frozen=True)
class Program:
    """A traced model, its preprocessing and where it came from.

    Attributes:
        exported: Functional ATen program; one image input `[batch, C, H, W]`, batch dimension dynamic. Convolutions
            and linear layers are whole nodes (`aten.conv2d.default`, `aten.linear.default`).
        preprocessing: How raw images become its input.
        source: Where the weights came from.
        classes: Size of the last axis of the first output.
    """

    exported: ExportedProgram
    preprocessing: Preprocessing
    source: SourceInfo
    classes: int

    @property
    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers by fully qualified name."""
        return dict(self.exported.state_dict)

    def with_weights(self, weights: dict[str, Tensor]) -> Program:
        """The same program with some weights replaced; this one is unchanged."""
        raise NotImplementedError  # filled in with the tracer
