"""A model repository for NVIDIA Triton Inference Server, which runs the ONNX files by ONNX Runtime and TensorRT."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from onnx import TensorProto

from snowsdeploy.stages.packages import Contents
from snowsdeploy.values import ExportReport, OnnxArtifact, SourceInfo
from snowsdeploy_exporters.formats.graph_io import BATCHES, read_io, shapes
from snowsdeploy_exporters.formats.templates import write_template

DATA_TYPES = {
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.BOOL: "TYPE_BOOL",
}


@dataclass(frozen=True)
class Model:
    """One model of the repository.

    Attributes:
        name: Its folder's name, by which clients ask for it.
        source: The ONNX file.
        sparse: Whether TensorRT may choose sparse kernels.
    """

    name: str
    source: OnnxArtifact
    sparse: bool


def write_triton(contents: Contents, folder: Path) -> Sequence[str]:
    """Write `NAME/config.pbtxt` and `NAME/1/model.onnx` for each model, and how to start and measure the server.

    Raises:
        ExportError: An output has no batch axis in front, so that requests cannot be batched.
    """
    models = list(planned(contents.files, base_name(contents.pruned.source)))
    for model in models:
        _write_model(model, folder / model.name)
    sparse = next(model for model in models if model.sparse)
    write_template("README.md.j2", folder / "README.md", models=models, sparse=sparse, batches=BATCHES)
    return ["not tried on a server: it needs ONNX Runtime 1.18 or later, and a GPU for sparse kernels"]


def planned(files: ExportReport, base: str) -> Iterator[Model]:
    """The models of every precision that was asked for."""
    serving = {file.precision: file for file in files.serving}
    for pair in files.judged:
        suffix = "" if pair.precision == "fp32" else f"_{pair.precision}"
        yield Model(f"{base}_dense{suffix}", pair.dense, sparse=False)
        yield Model(f"{base}_sparse{suffix}", pair.sparse, sparse=True)
        if pair.precision in serving:
            yield Model(f"{base}_serving{suffix}", serving[pair.precision], sparse=True)


def base_name(source: SourceInfo) -> str:
    """The architecture, else the file or factory, as a name that is allowed in paths and URLs."""
    text = source.arch.rpartition(":")[2] if source.arch else Path(source.source.rpartition(":")[2]).stem
    return re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "model"


def _write_model(model: Model, folder: Path) -> None:
    inputs, outputs = read_io(model.source.path)
    version = folder / "1"
    version.mkdir(parents=True)
    _link(model.source.path, version / "model.onnx")
    write_template(
        "config.pbtxt.j2",
        folder / "config.pbtxt",
        model=model,
        inputs=inputs,
        profile=partial(shapes, inputs),
        outputs=outputs,
        types=DATA_TYPES,
        batches=BATCHES,
    )


def _link(source: Path, target: Path) -> None:
    """The same file where the file system can share it, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
