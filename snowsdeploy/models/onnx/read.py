"""An ONNX file that can be imported, or one clear message."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto

from snowsdeploy.errors import SourceError
from snowsdeploy.layout.onnx_file import read_onnx_file, without_functions
from snowsdeploy.layout.onnx_weights import STANDARD_DOMAINS

__all__ = ["OLDEST_OPSET", "STANDARD_DOMAINS", "main_opset", "read_onnx", "without_functions"]

OLDEST_OPSET = 9


def read_onnx(path: Path) -> ModelProto:
    """Read a model with the tensors that it keeps in files beside it.

    Raises:
        SourceError: The file cannot be read, is older than opset 9, or holds sparse initializers.
    """
    model = read_onnx_file(path)
    opset = main_opset(model)
    if opset < OLDEST_OPSET:
        raise SourceError(
            "the ONNX file is of an opset that is too old",
            seen=f"{path}: opset {opset}" if opset else f"{path}: no opset of the main domain",
            allowed=f"opset {OLDEST_OPSET} or newer",
            fix="export it again, or raise it by onnx.version_converter.convert_version(model, 17)",
        )
    if model.graph.sparse_initializer:
        raise SourceError(
            "the ONNX file holds sparse initializers",
            seen=f"{path}: {model.graph.sparse_initializer[0].values.name}",
            allowed="dense initializers",
            fix="export the model with dense weights",
        )
    return model


def main_opset(model: ModelProto) -> int:
    """The version of the standard operators; 0 where none is given."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=0)
