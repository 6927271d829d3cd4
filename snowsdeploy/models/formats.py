"""Telling model files apart by their content, not their ending."""

from __future__ import annotations

import json
import zipfile
from enum import Enum
from pathlib import Path

from snowsdeploy.errors import SourceError, cause
from snowsdeploy.files import reading, require_regular
from snowsdeploy.machine import available_memory


class FileFormat(Enum):
    """What kind of file holds the model."""

    PICKLE = "torch.save checkpoint"
    SAFETENSORS = "safetensors"
    PT2 = "torch.export program"
    ONNX = "ONNX model"


_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
_ONNX_VERSION = b"\x08"  # a protobuf's first field, a number: in ONNX the version of its representation


def detect_format(path: Path) -> FileFormat:
    """Look at the first bytes, and at a zip's members.

    Raises:
        SourceError: Missing, unreadable, empty, truncated, no regular file, or a kind of file that cannot be used.
    """
    if not path.exists():
        raise SourceError(
            "the model file does not exist",
            seen=path,
            allowed="a checkpoint, a .pt2 program or an .onnx file",
            fix="check the path",
        )
    if path.is_dir():
        raise SourceError(
            "the model is a directory",
            seen=path,
            allowed="a checkpoint, a .pt2 program or an .onnx file",
            fix="pass the file in it",
        )
    require_regular(path, "the model is no file", SourceError)
    head = _head(path)
    if not head:
        raise SourceError(
            "the model file is empty",
            seen=f"{path} (0 bytes)",
            allowed="a complete file",
            fix="copy or download it again",
        )
    if head.startswith(b"version https:"):
        raise SourceError(
            "the model file is a Git LFS pointer, not the weights",
            seen=f"{path} ({path.stat().st_size} bytes)",
            allowed="the file that the pointer stands for",
            fix="run git lfs pull",
        )
    if path.suffix == ".onnx" or head.startswith(_ONNX_VERSION):
        return FileFormat.ONNX
    if head[:4] == b"PK\x03\x04":
        return _zip_format(path)
    # A safetensors file starts with the length of its header (8 bytes, never in the gigabytes), which is JSON.
    if path.suffix == ".safetensors" or (head[4:8] == bytes(4) and head[8:9] == b"{"):
        return _safetensors(path, head)
    return FileFormat.PICKLE


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(16)
    except OSError as error:
        raise SourceError(
            "the model file cannot be read",
            seen=f"{path}: {error.strerror or error}",
            allowed="a file that you may read",
            fix="check its permissions",
        ) from error


def _zip_format(path: Path) -> FileFormat:
    with reading(lambda error: truncated(path, error)), zipfile.ZipFile(path) as archive:
        names, unpacked = archive.namelist(), sum(member.file_size for member in archive.infolist())
    if unpacked > path.stat().st_size and unpacked > available_memory():  # PyTorch's own archives are not compressed
        raise truncated(path, f"it would unpack to {unpacked} bytes")
    if any(n.endswith("constants.pkl") for n in names) and any("/code/" in n for n in names):
        raise SourceError(
            "a TorchScript archive has no Python graph to export",
            seen=path,
            allowed="the checkpoint it was made from, or a .pt2 program",
            fix="pass the original checkpoint with --arch",
        )
    if "serialized_exported_program.json" in names:
        raise SourceError(
            "the .pt2 file has the format of torch 2.7 or older",
            seen=path,
            allowed="a program that torch.export.save of torch 2.8 or newer wrote",
            fix="export it again with a newer torch",
        )
    if any(n.endswith(("models/model.json", "archive_format")) for n in names):
        return FileFormat.PT2
    return FileFormat.PICKLE


def _safetensors(path: Path, head: bytes) -> FileFormat:
    length = int.from_bytes(head[:8], "little")
    if length + 8 > path.stat().st_size:
        raise truncated(path, "its header says it is longer")
    if length > _LONGEST_HEADER:
        raise truncated(path, f"its header has {length} bytes")
    with reading(lambda error: _bad_header(path, error)), path.open("rb") as stream:
        json.loads(stream.read(8 + length)[8:])
    return FileFormat.SAFETENSORS


def _bad_header(path: Path, error: Exception) -> SourceError:
    return SourceError(
        "the safetensors header cannot be read",
        seen=f"{path}: {cause(error)}",
        allowed="a complete file with the header that safetensors.torch.save_file writes",
        fix="copy or download it again, or save it again",
    )


def truncated(path: Path, error: object) -> SourceError:
    """The error for a file that ends too early, or holds something else than its kind should.

    Args:
        path: The file.
        error: What its reader said.
    """
    reason = cause(error) if isinstance(error, Exception) else error
    return SourceError(
        "the model file is truncated or damaged, or no PyTorch file",
        seen=f"{path} ({path.stat().st_size} bytes): {reason}",
        allowed="a complete file that torch.save or torch.export.save wrote",
        fix="copy or download it again and compare its size",
    )
