"""A module inside a wrapper -> the module."""

from __future__ import annotations

from torch import nn
from torch.optim import swa_utils

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, swa_utils.AveragedModel)


def unwrapped(module: nn.Module) -> nn.Module:
    """Without `DataParallel`, `DistributedDataParallel`, `AveragedModel` and `torch.compile` around it."""
    while True:
        inner = module.module if isinstance(module, _WRAPPERS) else getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner
