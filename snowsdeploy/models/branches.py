"""Blocks that are trained as several branches and deployed as one layer: RepVGG, MobileOne and their like.

Branches are pruned apart, and the sum of two 2:4 weights is not 2:4; so they are joined first. Only the model knows
how, and says so by a method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

_METHODS = ("reparameterize", "switch_to_deploy", "fuse")  # timm's names; those of the papers' own code
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_ROUNDING = 1e-3  # relative: another order of sums in each of many blocks, far below what a wrong joint makes


def join_branches(module: nn.Module, run: Callable[[nn.Module], Sequence[Tensor]]) -> tuple[nn.Module, str]:
    """Join the branches of every block that knows how to.

    Args:
        module: In evaluation mode; stays as it is.
        run: Calls it on the same items, with its outputs.

    Returns:
        A copy with joined blocks, or the module itself; and a sentence for the user, empty where it has no such blocks.
    """
    if not any(_joint(child) for parent in module.modules() for child in parent.children()):
        return module, ""
    try:
        copy = deepcopy(module)
        count = _join(copy)
        if not count:
            return module, ""
        with torch.no_grad():
            same = all(map(_same, run(module), run(copy)))
    except Exception as error:  # the user's code may raise anything
        return module, f"{_STAYED}: it raised {type(error).__name__}"
    if not same:
        return module, f"{_STAYED}: the outputs would change"
    blocks = "block of several branches is" if count == 1 else "blocks of several branches are"
    return copy, f"{count} {blocks} joined into single layers first, as the model's own method does it"


_STAYED = "blocks of several branches could not be joined, and each branch is pruned by itself"


def _joint(module: nn.Module) -> str:
    """The method that joins a block of at least two layers; empty where it has none."""
    if _layers(module) < 2:
        return ""
    return next((name for name in _METHODS if callable(getattr(module, name, None))), "")


def _join(parent: nn.Module) -> int:
    """Join in place, outermost blocks first; how many."""
    count = 0
    for name, child in parent.named_children():
        joined = _joined(child)
        if joined is None:
            count += _join(child)
        else:
            setattr(parent, name, joined)
            count += 1
    return count


def _joined(block: nn.Module) -> nn.Module | None:
    """The block with fewer layers; None where it stays."""
    method = _joint(block)
    if not method:
        return None
    made = deepcopy(block)
    result = getattr(made, method)()
    joined = result if isinstance(result, nn.Module) else made
    if method == "fuse" and not isinstance(joined, _LAYERS):  # of whole models, and where it folds norms alone
        return None
    return joined.eval().requires_grad_(False) if 0 < _layers(joined) < _layers(block) else None


def _layers(module: nn.Module) -> int:
    return sum(isinstance(child, _LAYERS) for child in module.modules())


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return bool((one == other).double().mean() > 1 - _ROUNDING)
    return float((one.double() - other.double()).norm()) <= _ROUNDING * float(one.double().norm())
