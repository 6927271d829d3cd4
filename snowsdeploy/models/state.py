"""The tensors of any PyTorch file, whatever its format."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from snowsdeploy.models.checkpoint import read_checkpoint
from snowsdeploy.models.formats import FileFormat, detect_format
from snowsdeploy.models.source import read_pt2


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name, of a checkpoint, a safetensors file or a `.pt2` program.

    Raises:
        SourceError: The file cannot be read.
    """
    kind = detect_format(path)
    if kind is FileFormat.PT2:
        return dict(read_pt2(path).exported.state_dict)
    return read_checkpoint(path, kind, allow_pickle=False).state_dict
