"""TensorRT: engines where they can be built, else the script that builds and times them on a machine with a GPU.

Three engines for each precision, because a fair comparison needs the middle one: the dense file, the sparse file
without sparse kernels (only its zeros differ), and the sparse file with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from snowsdeploy.stages.packages import Contents
from snowsdeploy.values import ExportReport, OnnxArtifact
from snowsdeploy_exporters.formats.graph_io import BATCHES, read_io, shapes
from snowsdeploy_exporters.formats.templates import write_template
from snowsdeploy_exporters.formats.tensorrt_build import build_engine, reason_not_to_build

SCRIPT = "build.sh"


@dataclass(frozen=True)
class Engine:
    """One engine to build.

    Attributes:
        name: Of its files, without the suffix.
        source: The ONNX file.
        sparse: Whether the builder may choose sparse kernels.
    """

    name: str
    source: OnnxArtifact
    sparse: bool


def write_tensorrt(contents: Contents, folder: Path) -> Sequence[str]:
    """Build the engines, or write `build.sh` and say why no engine was built.

    Raises:
        ExportError: TensorRT refuses a file.
    """
    engines = list(planned(contents.files))
    reason = reason_not_to_build()
    if reason is None:
        for engine in engines:
            build_engine(engine.source.path, folder / engine.name, sparse=engine.sparse)
        return ["the engines fit this GPU and this version of TensorRT only"]
    inputs, _ = read_io(contents.files.fp32.sparse.path)
    script = folder / SCRIPT
    write_template(f"{SCRIPT}.j2", script, engines=engines, profile=partial(shapes, inputs), batches=BATCHES)
    script.chmod(0o755)
    return [
        f"no engine was built: {reason}; {SCRIPT} builds and times {len(engines)} engines with trtexec on a machine "
        "that has a GPU"
    ]


def planned(files: ExportReport) -> Iterator[Engine]:
    """The engines of every precision that was asked for."""
    for pair in files.judged:
        suffix = "" if pair.precision == "fp32" else f".{pair.precision}"
        yield Engine(f"dense{suffix}", pair.dense, sparse=False)
        yield Engine(f"sparse-disabled{suffix}", pair.sparse, sparse=False)
        yield Engine(f"sparse{suffix}", pair.sparse, sparse=True)
