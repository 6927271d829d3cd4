"""What a forward pass leaves in a module beside parameters and buffers, such as the anchors of the last batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from snowsdeploy.batch import Batch


@contextmanager
def attributes_kept(module: nn.Module) -> Iterator[None]:
    """Give every module inside, at the end, the attributes that it had at the start and no others."""
    before = _attributes(module)
    try:
        yield
    finally:
        for child, attributes in before.items():
            for key in vars(child).keys() - attributes.keys():
                del vars(child)[key]
            vars(child).update(attributes)


def forget_runs(module: nn.Module, run: Callable[[Batch], object], batch: Batch) -> bool:
    """Delete what earlier runs left in a module and a run makes anew; a pickled module brings such caches along.

    A trace compares the batch's symbolic size with the size that a cache was made for, and fails. An attribute is taken
    for a cache when `forward` sets it and its class has a value for it to begin with.

    Args:
        module: In evaluation mode.
        run: Calls it.
        batch: Two items or more.

    Returns:
        Whether anything was deleted: never from a module that does not run, or whose outputs depend on it.
    """
    try:
        with torch.no_grad(), attributes_kept(module):
            before, caches = _attributes(module), set[tuple[nn.Module, str]]()
            for items in (batch[:-1], batch):  # one of the two is not of the size that is cached
                expected = _tensors(run(items))
                caches |= {(child, key) for child in before for key in _set_since(before[child], child)}
            _delete(caches)
            found = _tensors(run(batch))
    except Exception:  # the user's code may raise anything, and the trace has already said what is wrong
        return False
    if len(found) != len(expected) or not all(map(torch.equal, found, expected)):
        return False
    return _delete(caches)


def _attributes(module: nn.Module) -> dict[nn.Module, dict[str, Any]]:
    return {child: dict(vars(child)) for child in module.modules()}


def _set_since(before: dict[str, Any], module: nn.Module) -> list[str]:
    """Attributes that hold another object than before, and whose class has one too."""
    return [k for k, v in vars(module).items() if (k not in before or v is not before[k]) and hasattr(type(module), k)]


def _delete(caches: set[tuple[nn.Module, str]]) -> bool:
    """Whether there was one."""
    held = [(child, key) for child, key in caches if key in vars(child)]
    for child, key in held:
        delattr(child, key)
    return bool(held)


def _tensors(outputs: object) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
