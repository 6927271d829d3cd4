"""A small run's files and values, for what is made from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.settings.export import ExportSettings
from snowsdeploy.stages.packages import Contents
from snowsdeploy.stages.run_directory import RunDirectory
from snowsdeploy.values import DataInfo, ExportReport, FilePair, OnnxArtifact, Precision, PruneReport, Role
from snowsdeploy_exporters import OnnxExporter
from tests.exporters.nets import prune

DATA = DataInfo(source="images.npz", items=1, labelled=False, origin="o", fingerprint="f")


def make_contents(
    program: Program,
    folder: Path,
    precisions: Sequence[Precision] = ("fp32",),
    settings: ExportSettings | None = None,
    pattern: str = "2:4",
) -> Contents:
    """Prune by magnitude, and write the ONNX files of the precisions (and FP32) into a run directory."""
    run, exporter = RunDirectory(folder), OnnxExporter()
    pruned, _ = prune(program, Pattern.parse(pattern))
    images = images_of(program)
    programs: dict[Role, Program] = {"dense": program, "sparse": pruned}
    fp32 = {role: exporter.export(p, run.onnx(role), role, {"a": "b"}) for role, p in programs.items()}
    pairs = [FilePair(dense=fp32["dense"], sparse=fp32["sparse"])]
    for precision in precisions:
        if precision != "fp32":
            made: dict[Role, OnnxArtifact] = {
                role: exporter.convert(file, run.onnx(role, precision), precision, images)
                for role, file in fp32.items()
            }
            pairs.append(FilePair(dense=made["dense"], sparse=made["sparse"]))
    files = ExportReport(pairs=tuple(pairs), asked=tuple(precisions))
    if settings is not None:
        serving = [
            exporter.serve(p.sparse, run.serving(p.precision), settings, program.preprocessing, images)
            for p in files.judged
        ]
        files = files.model_copy(update={"serving": tuple(serving)})
    return Contents(pruned, _report(program, pattern), files)


def images_of(program: Program, count: int = 8) -> list[torch.Tensor]:
    """Batches of noise `[count, C, H, W]`."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, *program.preprocessing.input_size, generator=generator) for _ in range(2)]


def _report(program: Program, pattern: str) -> PruneReport:
    return PruneReport(
        pattern=pattern,
        selector="magnitude",
        solver={},
        decisions=decide_layers(ProgramGraph(program), Pattern.parse(pattern)),
        solves=(),
        calibration=DATA,
        calibration_items=(0,),
        seconds=0.0,
        seed=0,
    )
