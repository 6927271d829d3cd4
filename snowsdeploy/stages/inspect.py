"""The layout of any model file; only a PyTorch file needs PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snowsdeploy.engines.account import read_account
from snowsdeploy.engines.evidence import add_engine
from snowsdeploy.errors import UsageError
from snowsdeploy.install import require_extra
from snowsdeploy.layout.evidence import Unreadable, inspect_tensors
from snowsdeploy.layout.onnx_layout import inspect_onnx
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.values import EngineEvidence, SparsityEvidence


def inspect_file(path: Path, pattern: Pattern) -> SparsityEvidence:
    """Read an ONNX file, or the state dict of a checkpoint, safetensors or `.pt2` file.

    Raises:
        SourceError: The file cannot be read.
    """
    if path.suffix == ".onnx":
        return inspect_onnx(path, pattern)
    return inspect_tensors(_tensors(path), path, pattern)


def inspect_engine(
    evidence: SparsityEvidence, log: Path | None, layers: Path | None
) -> tuple[SparsityEvidence, EngineEvidence]:
    """What an engine that was built from an inspected ONNX file made of the layers that hold the pattern.

    Args:
        evidence: What the file holds.
        log: TensorRT's build log.
        layers: Its engine inspector's JSON.

    Raises:
        UsageError: The file is not ONNX.
        SourceError: A file cannot be read, is not what its option asks for, or is of another model.
    """
    if evidence.file.suffix != ".onnx":
        raise UsageError(
            "--engine-log and --engine-layers need the ONNX file that the engine was built from",
            seen=evidence.file,
            allowed="an .onnx file",
            fix="inspect that .onnx file, or leave --engine-log and --engine-layers out",
        )
    return add_engine(evidence, read_account(log, layers))


def _tensors(path: Path) -> Iterator[tuple[str, NDArray[np.bool_] | Unreadable]]:
    """Where each tensor of a state dict is not zero, by name."""
    require_extra("prune", f"inspect {path.name}")
    from snowsdeploy.models.state import nonzero, read_state_dict  # noqa: PLC0415 - imports PyTorch

    for name, tensor in read_state_dict(path).items():
        yield name, nonzero(tensor)


def unmet(evidence: SparsityEvidence, required: Sequence[str]) -> list[str]:
    """Names of the required layers that do not hold the pattern.

    Args:
        evidence: What a file holds.
        required: Name patterns (`*` and `?`).

    Raises:
        UsageError: A name pattern matches no layer, so that nothing would be proven.
    """
    names = [layer.name for layer in evidence.layers]
    for text in required:
        if not any(fnmatchcase(name, text) for name in names):
            raise UsageError(
                "--require matches no layer",
                seen=text,
                allowed=", ".join([*names[:6], "..."] if len(names) > 6 else names) or "nothing: the file has no layer",
                fix="write a layer's name as the table of snowsdeploy inspect shows it; * and ? stand for any part",
            )
    return [r.name for r in evidence.layers if not r.layout_valid and any(fnmatchcase(r.name, t) for t in required)]
