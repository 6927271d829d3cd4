"""Padding of convolutions and poolings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from snowsdeploy.models.onnx.call import Call
from snowsdeploy.models.onnx.host import Number


@dataclass(frozen=True)
class Window:
    """How a kernel moves over the spatial axes; every field has one entry an axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[Number, ...]
    after: tuple[Number, ...]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def is_symmetric(self) -> bool:
        """Whether torch's own padding is enough."""
        return self.is_known and self.before == self.after

    @property
    def is_known(self) -> bool:
        """Whether the padding is the same for images of every size."""
        return all(isinstance(pad, int) for pad in (*self.before, *self.after))

    @property
    def extents(self) -> tuple[int, ...]:
        """Elements that the dilated kernel covers."""
        return tuple((size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True))

    def padded(self, value: Tensor, fill: float = 0.0) -> Tensor:
        """The input with the padding written out."""
        pads = [pad for pair in reversed(list(zip(self.before, self.after, strict=True))) for pad in pair]
        return value if self.is_known and not any(pads) else F.pad(value, pads, value=fill)

    def trimmed(self, pooled: Tensor, value: Tensor) -> Tensor:
        """Without windows that begin in the padding at the end, which rounding up would add.

        Args:
            pooled: Of the padded input.
            value: The input before it was padded.
        """
        starts = zip(value.shape[2:], self.before, self.strides, strict=True)
        limits = [slice(None, -(-(size + pad) // stride)) for size, pad, stride in starts]
        return pooled[(slice(None), slice(None), *limits)]


def window(call: Call, value: Tensor, kernel: Sequence[int]) -> Window:
    """The window of a node from its attributes.

    Raises:
        SourceError: The number of spatial axes is none that torch has.
    """
    rank = len(kernel)
    if not 1 <= rank <= 3 or value.dim() != rank + 2:
        raise call.refused(
            "its number of axes", seen=f"{rank} spatial axes, input {tuple(value.shape)}", allowed="1..3"
        )
    strides = tuple(call.get("strides", [1] * rank))
    dilations = tuple(call.get("dilations", [1] * rank))
    mode = call.get("auto_pad", "NOTSET")
    pads = list(call.get("pads", [0] * 2 * rank)) if mode == "NOTSET" else [0] * 2 * rank
    if mode.startswith("SAME"):
        extents = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
        totals = list(itertools.starmap(same_padding, zip(value.shape[2:], extents, strides, strict=True)))
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        pads = [*small, *large] if mode == "SAME_UPPER" else [*large, *small]
    return Window(tuple(kernel), strides, dilations, tuple(pads[:rank]), tuple(pads[rank:]))


def same_padding(size: Number, extent: int, stride: int) -> Number:
    """Elements to add for an output of the input's size over the stride, rounded up."""
    if stride == 1:
        return extent - 1
    return torch.sym_max((-(-size // stride) - 1) * stride + extent - size, 0)
