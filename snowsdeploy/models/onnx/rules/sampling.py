"""Resampling along single axes, by the formulas of ONNX's Resize."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snowsdeploy.models.onnx import host
from snowsdeploy.models.onnx.host import Number


@dataclass(frozen=True)
class Axis:
    """One axis that gets another size.

    Attributes:
        axis: Its position.
        before: Its size.
        after: The size that it gets.
        scale: As the file gives it; None where the file gives sizes.
    """

    axis: int
    before: Number
    after: Number
    scale: Number | None

    @property
    def is_same(self) -> bool:
        """Whether nothing changes."""
        if self.scale is not None:
            return not host.is_symbol(self.scale) and self.scale == 1.0
        return self.after is self.before or bool(self.after == self.before)

    @property
    def factor(self) -> int | None:
        """How many times larger the axis gets; None where that is no whole number for sure."""
        if self.scale is not None:
            whole = not host.is_symbol(self.scale) and float(self.scale).is_integer() and self.scale >= 1
            return int(self.scale) if whole else None
        if host.is_symbol(self.after) or host.is_symbol(self.before):
            return next((factor for factor in range(2, 9) if _always_equal(self.after, self.before * factor)), None)
        return self.after // self.before if self.after % self.before == 0 else None

    @property
    def is_exact(self) -> bool:
        """Whether the new size over the old one is the scale."""
        return self.scale is None or self.factor is not None or self._is_whole_product()

    def _is_whole_product(self) -> bool:
        return (
            not host.is_symbol(self.before)
            and not host.is_symbol(self.scale)
            and self.before * self.scale == self.after
        )

    def ratio(self, like: Tensor) -> Tensor:
        """The scale, in single precision as ONNX Runtime has it."""
        if self.scale is not None and not host.is_symbol(self.scale):
            return torch.full((), self.scale, dtype=torch.float32, device=like.device)
        after, before = (torch.full((), 1.0, device=like.device) * size for size in (self.after, self.before))
        ratio: Tensor = after / before
        return ratio


def _always_equal(left: Number, right: Number) -> bool:
    """Whether two sizes are equal whatever the symbols stand for."""
    if not isinstance(left, torch.SymInt) or not isinstance(right, torch.SymInt):
        return False
    return bool(left.node.expr == right.node.expr)


@dataclass(frozen=True)
class Sampling:
    """How a pixel is computed from its neighbours; the fields are those attributes of Resize."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool


def resampled(tensor: Tensor, axes: Sequence[Axis], sampling: Sampling) -> Tensor:
    """The tensor with these axes in their new sizes."""
    for axis in axes:
        places = _source(tensor, axis, sampling.coordinates)
        if sampling.mode == "nearest":
            picked = _nearest(places, sampling.nearest).clamp(0, axis.before - 1)
            tensor = tensor.index_select(axis.axis, picked.to(torch.int64))
        else:
            tensor = _weighted(tensor, axis, places, sampling)
    return tensor


def _source(tensor: Tensor, axis: Axis, coordinates: str) -> Tensor:
    """For each new pixel, where in the old image it lies."""
    new = torch.arange(axis.after, dtype=torch.float32, device=tensor.device)
    ratio = axis.ratio(tensor)
    if coordinates == "asymmetric":
        return new / ratio
    if coordinates == "align_corners":
        return new * (axis.before - 1) / (axis.after - 1) if axis.after > 1 else torch.zeros_like(new)
    if coordinates == "pytorch_half_pixel" and axis.after == 1:
        return torch.zeros_like(new)
    centred = (new + 0.5) / ratio
    if coordinates == "half_pixel_symmetric":
        centred = (1 - axis.after / (ratio * axis.before)) * (axis.before / 2) + centred
    return centred - 0.5


def _nearest(places: Tensor, mode: str) -> Tensor:
    if mode == "floor":
        return places.floor()
    if mode == "ceil":
        return places.ceil()
    return (places - 0.5).ceil() if mode == "round_prefer_floor" else (places + 0.5).floor()


def _weighted(tensor: Tensor, axis: Axis, places: Tensor, sampling: Sampling) -> Tensor:
    """A weighted sum of two or four old pixels."""
    if sampling.mode == "linear":
        places = places.clamp(0, axis.before - 1)
    low = places.floor()
    rest = places - low
    offsets = (0, 1) if sampling.mode == "linear" else (-1, 0, 1, 2)
    weights = (1 - rest, rest) if sampling.mode == "linear" else _cubic(rest, sampling.cubic)
    if sampling.exclude_outside and sampling.mode == "cubic":
        inside = [((low + offset >= 0) & (low + offset <= axis.before - 1)).to(rest.dtype) for offset in offsets]
        kept = [weight * mask for weight, mask in zip(weights, inside, strict=True)]
        total = torch.stack(kept).sum(0)
        weights = tuple(weight / total for weight in kept)
    shape = [-1] + [1] * (tensor.dim() - axis.axis - 1)
    parts = [
        tensor.index_select(axis.axis, (low + offset).clamp(0, axis.before - 1).to(torch.int64)) * weight.reshape(shape)
        for offset, weight in zip(offsets, weights, strict=True)
    ]
    return torch.stack(parts).sum(0) if len(parts) > 2 else parts[0] + parts[1]


def _cubic(rest: Tensor, a: float) -> tuple[Tensor, ...]:
    """Weights of the four neighbours: R. Keys, Cubic convolution interpolation for digital image processing, 1981."""

    def near(distance: Tensor) -> Tensor:
        return ((a + 2) * distance - (a + 3)) * distance * distance + 1

    def far(distance: Tensor) -> Tensor:
        return ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a

    return far(rest + 1), near(rest), near(1 - rest), far(2 - rest)
