"""Which weights stay: a selector reads a layer's weight and the second moments of its inputs, and gives a mask."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from snowsdeploy.selectors.exchange import exchange
from snowsdeploy.selectors.magnitude import magnitude
from snowsdeploy.selectors.sparsegpt import sparsegpt
from snowsdeploy.sparsity.pattern import Pattern

# weight [rows, d], X^T X [d, d], pattern -> mask [rows, d]; groups are consecutive columns
Selector = Callable[[Tensor, Tensor, Pattern], Tensor]
SELECTORS: dict[str, Selector] = {"magnitude": magnitude, "sparsegpt": sparsegpt, "exchange": exchange}


def select_mask(selector: Selector, weight: Tensor, gram: Tensor, pattern: Pattern) -> Tensor:
    """The mask of a layer, with its groups where the hardware has them.

    Args:
        selector: One of `SELECTORS`.
        weight: `[K, C, ...]`.
        gram: `X^T X` in the order of `weight.flatten(1)`.
        pattern: N:M along C.

    Returns:
        Boolean, the weight's shape.
    """
    columns = torch.arange(weight[0].numel(), device=weight.device).view(weight.shape[1:])
    order = columns.movedim(0, -1).flatten()  # the m consecutive channels at one kernel position become neighbours
    chosen = selector(weight.flatten(1)[:, order], gram[order][:, order], pattern)
    mask = torch.zeros_like(chosen)
    mask[:, order] = chosen
    return mask.view(weight.shape)
