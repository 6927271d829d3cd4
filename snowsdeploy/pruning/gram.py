"""Second moments of a layer's inputs, in the weight's own coordinates."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from snowsdeploy.errors import GraphError
from snowsdeploy.models.graph import argument, base_name


def input_rows(call: Node, x: Tensor) -> Tensor:
    """The rows X with `layer(x) = X W^T` for the weight flattened to `[out, d]`.

    Args:
        call: A `conv1d`, `conv2d` or `linear` node without groups.
        x: The layer's input.

    Returns:
        `[samples, d]`; a sample is one output position. For a convolution `d = C * R * S` in the weight's order.
    """
    name = base_name(call)
    if name == "linear":
        return x.reshape(-1, x.shape[-1])
    weight = call.args[1]
    assert isinstance(weight, Node)
    kernel = tuple(weight.meta["val"].shape[2:])
    rank = len(kernel)
    stride, padding, dilation = (_per_axis(argument(call, i, n, d), rank) for i, n, d in _CONV_ARGUMENTS)
    if padding == "same" or padding == "valid":
        x, padding = _explicit_padding(x, padding, kernel, dilation), (0,) * rank
    if rank == 1:
        x, kernel, stride, padding, dilation = _to_2d(x, kernel, stride, padding, dilation)
    columns = F.unfold(x, kernel, dilation, padding, stride)
    return columns.transpose(1, 2).flatten(0, 1)


_CONV_ARGUMENTS = ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))


def _per_axis(value: object, rank: int) -> tuple[int, ...] | str:
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return (value,) * rank
    sizes = tuple(value)  # type: ignore[arg-type]  # a list of ints in every ATen convolution
    return sizes * rank if len(sizes) == 1 else sizes


def _explicit_padding(x: Tensor, mode: str, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    if mode == "valid":
        return x
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    pads = [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return F.pad(x, pads)


def _to_2d(x: Tensor, *sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    kernel, stride, padding, dilation = sizes
    return x.unsqueeze(2), (1, *kernel), (1, *stride), (0, *padding), (1, *dilation)  # type: ignore[return-value]


def gram_matrix(pairs: Iterable[tuple[Node, Tensor]]) -> Tensor:
    """`X^T X` over all batches and calls of one weight, products in the input's dtype, summed in float64.

    Args:
        pairs: `(call, input)` for each batch and call.

    Returns:
        `[d, d]`, float64.

    Raises:
        GraphError: There are no inputs.
    """
    total: Tensor | None = None
    for call, x in pairs:
        rows = input_rows(call, x)
        product = (rows.T @ rows).double()
        total = product if total is None else total + product
    if total is None:
        raise GraphError("a layer received no calibration input", fix="pass at least one image by --data")
    return total


def cross_matrix(pairs: Iterable[tuple[Node, Tensor, Tensor]]) -> Tensor:
    """`T^T X` for targets T of the layer's output, bias already removed; as `gram_matrix`.

    Args:
        pairs: `(call, input, target)`; the target has the shape of the layer's output.

    Returns:
        `[out, d]`, float64.
    """
    total: Tensor | None = None
    for call, x, target in pairs:
        rows = input_rows(call, x)
        flat = target.reshape(-1, target.shape[-1]) if base_name(call) == "linear" else target.flatten(2).transpose(1, 2).flatten(0, 1)
        product = (flat.T @ rows).double()
        total = product if total is None else total + product
    assert total is not None
    return total
