"""Second moments of a layer's inputs, in the weight's own coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from snowsdeploy.errors import GraphError, NumericsError
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
    stride, dilation = (_per_axis(argument(call, i, n, 1), rank) for i, n in ((3, "stride"), (5, "dilation")))
    padding = argument(call, 4, "padding", 0)
    if isinstance(padding, str):
        x, padding = _explicit_padding(x, padding, kernel, dilation), 0
    sides = _per_axis(padding, rank)
    if rank == 1:  # a sequence is an image of height one
        x, kernel, dilation = x.unsqueeze(2), (1, *kernel), (1, *dilation)
        sides, stride = (0, *sides), (1, *stride)
    columns = F.unfold(x, kernel, dilation, sides, stride)
    return columns.transpose(1, 2).flatten(0, 1)


def _per_axis(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    sizes = (value,) if isinstance(value, int) else tuple(value)
    return sizes * rank if len(sizes) == 1 else sizes


def _explicit_padding(x: Tensor, mode: str, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    if mode == "valid":
        return x
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return F.pad(x, [side for total in reversed(totals) for side in (total // 2, total - total // 2)])


def _weigh(rows: Tensor, x: Tensor, call: Node, metric: Tensor) -> Tensor:
    if base_name(call) == "linear":
        weights = metric.mean(-1).expand(x.shape[:-1])
    else:
        weights = metric.mean(1).expand(len(x), *metric.shape[2:])
    return rows * weights.reshape(-1, 1)


def gram_matrix(pairs: Iterable[tuple[Node, Tensor]], metrics: Mapping[Node, Tensor] | None = None) -> Tensor:
    """`X^T S X` over all batches and calls of one weight, products in the input's dtype, summed in float64.

    Args:
        pairs: `(call, input)` for each batch and call.
        metrics: Call -> diagonal metric of its output, of one item; S is its mean over channels at each position, the
            identity for a call that is not in it.

    Returns:
        `[d, d]`, float64.

    Raises:
        GraphError: There are no inputs.
        NumericsError: Squares overflow.
    """
    total: Tensor | None = None
    for call, x in pairs:
        rows = input_rows(call, x)
        weighted = _weigh(rows, x, call, metrics[call]) if metrics and call in metrics else rows
        product = (weighted.T @ rows).double()
        total = product if total is None else total + product
    if total is None:
        raise GraphError(
            "a layer received no calibration input",
            seen="no batch",
            allowed="at least one image",
            fix="pass images with --data",
        )
    require_finite(call, total)
    return total


def require_finite(call: Node, moments: Tensor) -> None:
    """Refuse sums of squares that overflow, of inputs that are finite.

    Raises:
        NumericsError: A value is infinite, or no number.
    """
    if bool(torch.isfinite(moments).all()):
        return
    weight = call.args[1]
    assert isinstance(weight, Node)
    raise NumericsError(
        "the squares of a layer's inputs overflow",
        seen=f"in front of {weight.name.removeprefix('p_')}",
        allowed="values whose squares are below 3e38",
        fix="look for fill values in --data, such as 1e30 where nothing was measured, and replace them",
    )
