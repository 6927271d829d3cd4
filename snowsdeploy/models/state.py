"""The tensors of any PyTorch file, whatever its format, and where their values are not zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snowsdeploy.errors import first_line
from snowsdeploy.layout.evidence import Unreadable
from snowsdeploy.models.checkpoint import read_checkpoint
from snowsdeploy.models.formats import FileFormat, detect_format
from snowsdeploy.models.source import read_pt2
from snowsdeploy.models.usable import type_name


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name, of a checkpoint, a safetensors file or a `.pt2` program.

    Raises:
        SourceError: The file cannot be read.
    """
    kind = detect_format(path)
    if kind is FileFormat.PT2:
        return dict(read_pt2(path).exported.state_dict)
    return read_checkpoint(path, kind, allow_pickle=False).state_dict


def nonzero(tensor: Tensor) -> NDArray[np.bool_] | Unreadable:
    """Where a stored tensor is not zero, or why that cannot be seen."""
    if isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer):
        return Unreadable((), "a lazy layer has no weights yet")
    shape = tuple(tensor.shape)
    if reason := _hidden(tensor):
        return Unreadable(shape, reason)
    try:
        return (tensor.detach().float() != 0).numpy()
    except (RuntimeError, TypeError) as error:  # packed types of less than a byte
        return Unreadable(shape, f"{type_name(tensor)} cannot be read: {first_line(error)}")


def _hidden(tensor: Tensor) -> str:
    """Why the values are no matrix of numbers; empty where they are one."""
    if tensor.is_meta:
        return "it is on the meta device and has no values"
    if tensor.is_quantized:
        return f"it is quantised to {type_name(tensor)}"
    if tensor.layout != torch.strided:
        return f"it is stored as {str(tensor.layout).removeprefix('torch.')}, and engines read dense weights"
    if tensor.is_complex() or tensor.dtype == torch.bool:
        return f"it is {type_name(tensor)}, not real numbers"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "it is a view that repeats fewer values than its shape has"
    return ""
