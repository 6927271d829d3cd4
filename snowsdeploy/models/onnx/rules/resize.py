"""Images in another size, and blocks of pixels moved to channels and back."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch.nn.functional as F
from torch import Tensor

from snowsdeploy.models.onnx import host
from snowsdeploy.models.onnx.call import Call, Result, Value
from snowsdeploy.models.onnx.host import Number
from snowsdeploy.models.onnx.rules.registry import rule, tensor_rule
from snowsdeploy.models.onnx.rules.sampling import Axis, Sampling, resampled

_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}
_COORDINATES = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners")
_EXACT_FACTOR = 8  # up to this, torch's reciprocal of a factor gives the same pixels as ONNX's division


@rule("Upsample")
def _upsample(call: Call, value: Value, scales: Value = None) -> Result:
    given = call.get("scales") if scales is None else call.numbers(scales, "scales")
    tensor = call.tensor(value)
    return _resized(call, tensor, _by_scales(tensor, list(range(tensor.dim())), given), "asymmetric", "floor")


@rule("Resize")
def _resize(call: Call, value: Value, second: Value = None, third: Value = None, sizes: Value = None) -> Result:
    """The second input is the region of interest from opset 11 on, and the scales before."""
    call.only("antialias", 0)
    call.only("keep_aspect_ratio_policy", "stretch")
    tensor = call.tensor(value)
    places = [axis % tensor.dim() for axis in call.axes()] or list(range(tensor.dim()))
    if call.opset < 11:
        axes = _by_scales(tensor, places, call.numbers(second, "scales"))
        return _resized(call, tensor, axes, "asymmetric", "floor")
    coordinates = call.get("coordinate_transformation_mode", "half_pixel")
    if sizes is not None and (wanted := call.numbers(sizes, "sizes")):
        axes = [Axis(axis, tensor.shape[axis], size, None) for axis, size in zip(places, wanted, strict=True)]
    else:
        axes = _by_scales(tensor, places, call.numbers(third, "scales"))
    return _resized(call, tensor, axes, coordinates, call.get("nearest_mode", "round_prefer_floor"))


def _by_scales(tensor: Tensor, axes: Sequence[int], scales: Sequence[Number]) -> list[Axis]:
    sized = zip(axes, scales, strict=True)
    return [Axis(axis, tensor.shape[axis], _scaled(tensor.shape[axis], scale), scale) for axis, scale in sized]


def _scaled(size: Number, scale: Number) -> Number:
    """The new size, rounded down; exact in integers where the scale is a simple fraction."""
    if host.is_symbol(scale) or not host.is_symbol(size):
        return host.whole(size * scale)
    fraction = Fraction(scale).limit_denominator(64)
    if abs(float(fraction) - scale) < 1e-7 * scale:
        return size * fraction.numerator // fraction.denominator
    return host.whole(size * scale)


def _resized(call: Call, tensor: Tensor, axes: Sequence[Axis], coordinates: str, nearest: str) -> Tensor:
    mode = call.get("mode", "nearest")
    sampling = Sampling(mode, coordinates, nearest, call.get("cubic_coeff_a", -0.75), call.flag("exclude_outside"))
    if coordinates not in _COORDINATES:
        raise call.refused(
            "its coordinates are not supported",
            seen=f"coordinate_transformation_mode={coordinates}",
            allowed=", ".join(_COORDINATES),
        )
    if coordinates == "half_pixel_symmetric" and mode == "nearest":  # the last bit decides which pixel is taken
        raise call.refused(
            "its coordinates are not supported", seen=f"{coordinates} with mode=nearest", allowed="another mode with it"
        )
    changed = [axis for axis in axes if not axis.is_same]
    if not changed:
        return tensor
    spatial = list(range(2, tensor.dim()))
    if _torch_does(sampling, changed, tensor.dim()):
        sizes = {axis.axis: axis.after for axis in changed}
        size = [sizes.get(axis, tensor.shape[axis]) for axis in spatial]
        if mode == "nearest":
            return F.interpolate(tensor, size=size)
        name = _LINEAR[tensor.dim()] if mode == "linear" else "bicubic"
        return F.interpolate(tensor, size=size, mode=name, align_corners=coordinates == "align_corners")
    return resampled(tensor, changed, sampling)


def _torch_does(sampling: Sampling, axes: Sequence[Axis], rank: int) -> bool:
    """Whether torch's interpolation gives the very pixels that ONNX asks for."""
    if not 3 <= rank <= 5 or any(axis.axis < 2 for axis in axes):
        return False
    if sampling.mode == "nearest":
        centred = sampling.coordinates.endswith("half_pixel") and sampling.nearest.startswith("round")
        plain = sampling.coordinates == "asymmetric" and sampling.nearest == "floor"
        return (plain or centred) and all(axis.factor is not None and axis.factor <= _EXACT_FACTOR for axis in axes)
    if sampling.mode == "cubic" and (rank != 4 or sampling.cubic != -0.75 or sampling.exclude_outside):
        return False
    if not all(axis.is_exact and (host.is_symbol(axis.after) or axis.after > 1) for axis in axes):
        return False
    return sampling.coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners")


@tensor_rule("GridSample")
def _grid_sample(call: Call, value: Tensor, grid: Tensor) -> Tensor:
    mode = call.get("mode", "bilinear")
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    if value.dim() == 5 and mode == "bicubic":
        raise call.refused(
            "its attribute mode is not supported", seen="cubic in three dimensions", allowed="linear or nearest"
        )
    return F.grid_sample(value, grid, mode, call.get("padding_mode", "zeros"), call.flag("align_corners"))


@tensor_rule("DepthToSpace")
def _depth_to_space(call: Call, value: Tensor) -> Tensor:
    block = call.get("blocksize")
    if call.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(value, block)
    batch, channels, height, width = value.shape
    blocks = value.reshape(batch, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(batch, channels // block**2, height * block, width * block)


@tensor_rule("SpaceToDepth")
def _space_to_depth(call: Call, value: Tensor) -> Tensor:
    block = call.get("blocksize")
    batch, channels, height, width = value.shape
    blocks = value.reshape(batch, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(batch, channels * block**2, height // block, width // block)
