"""Telling model files apart by their content, not their ending."""

from __future__ import annotations

import json
import zipfile
from enum import Enum
from pathlib import Path

from snowsdeploy.errors import SourceError


class FileFormat(Enum):
    """What kind of file holds the model."""

    PICKLE = "torch.save checkpoint"
    SAFETENSORS = "safetensors"
    PT2 = "torch.export program"
    TORCHSCRIPT = "TorchScript archive"


def detect_format(path: Path) -> FileFormat:
    """Look at the first bytes, and at a zip's members.

    Raises:
        SourceError: Missing, empty, a directory, an ONNX file, TorchScript, or a truncated archive.
    """
    if not path.exists():
        raise SourceError("the model file does not exist", seen=path, fix="check the path")
    if path.is_dir():
        raise SourceError("the model is a directory", seen=path, allowed="a checkpoint file", fix="pass the file in it")
    head = path.read_bytes()[:16] if path.stat().st_size < 16 else _head(path)
    if not head:
        raise SourceError("the model file is empty", seen=path, fix="copy or download it again")
    if path.suffix == ".onnx":
        raise SourceError(
            "an ONNX file cannot be pruned",
            seen=path,
            allowed="a PyTorch checkpoint",
            fix="pass the model it came from",
        )
    if head[:4] == b"PK\x03\x04":
        return _zip_format(path)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _safetensors(path, head)
    return FileFormat.PICKLE


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(16)


def _zip_format(path: Path) -> FileFormat:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise truncated(path, error) from error
    if any(n.endswith("constants.pkl") for n in names) and any("/code/" in n for n in names):
        raise SourceError(
            "a TorchScript archive has no Python graph to export",
            seen=path,
            allowed="the checkpoint it was made from, or a .pt2 program",
            fix="pass the original checkpoint with --arch",
        )
    if any(n.endswith(("models/model.json", "archive_format")) for n in names):
        return FileFormat.PT2
    return FileFormat.PICKLE


def _safetensors(path: Path, head: bytes) -> FileFormat:
    length = int.from_bytes(head[:8], "little")
    if length + 8 > path.stat().st_size:
        raise truncated(path, "its header says it is longer")
    try:
        with path.open("rb") as stream:
            json.loads(stream.read(8 + length)[8:])
    except ValueError as error:
        raise SourceError("the safetensors header cannot be read", seen=path, fix="save the file again") from error
    return FileFormat.SAFETENSORS


def truncated(path: Path, error: object) -> SourceError:
    """The error for a file that ends too early."""
    return SourceError(
        "the model file is truncated or damaged",
        seen=f"{path} ({path.stat().st_size} bytes): {str(error).splitlines()[0][:160]}",
        fix="copy or download it again and compare its size",
    )
