"""The export stage: a dense and a sparse file for each precision, the layout proven in every sparse one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import file_digest
from pathlib import Path
from typing import Protocol

from torch import Tensor

from snowsdeploy.artifacts import ExportReport, FilePair, OnnxArtifact, Precision, Preprocessing, PruneReport, Role
from snowsdeploy.config import ExportSettings
from snowsdeploy.data.open import open_images
from snowsdeploy.errors import DataError, OutputError, UsageError
from snowsdeploy.files import write_text_atomic
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pipeline.packages import Contents, Writers, require_formats, write_packages
from snowsdeploy.progress import Observer
from snowsdeploy.run_directory import RunDirectory
from snowsdeploy.sparsity.onnx_layout import check_onnx
from snowsdeploy.sparsity.pattern import Pattern
from snowsdeploy.validation.environment import installed_versions

CONVERSION_IMAGES, CONVERSION_BATCH = 128, 8  # what ranges of activations are measured on


class Exporter(Protocol):
    """Writes a program to a file, and that file in other precisions."""

    def export(self, program: Program, path: Path, role: Role, metadata: Mapping[str, str]) -> OnnxArtifact:
        """See `snowsdeploy_exporters.OnnxExporter`."""

    def convert(self, source: OnnxArtifact, path: Path, precision: Precision, images: Sequence[Tensor]) -> OnnxArtifact:
        """See `snowsdeploy_exporters.OnnxExporter`."""

    def serve(
        self,
        source: OnnxArtifact,
        path: Path,
        settings: ExportSettings,
        preprocessing: Preprocessing,
        images: Sequence[Tensor],
    ) -> OnnxArtifact:
        """See `snowsdeploy_exporters.OnnxExporter`."""


def export_programs(
    program: Program,
    pruned: Program,
    report: PruneReport,
    run: RunDirectory,
    exporter: Exporter,
    *,
    settings: ExportSettings,
    writers: Writers,
    observer: Observer,
) -> ExportReport:
    """Write a dense and a sparse file for FP32 and each other precision, and what is made from them; all or none stay.

    Raises:
        ExportError: As the exporter says.
        LayoutError: A pruned layer does not hold the pattern in a sparse file.
        DataError: The calibration images that a conversion needs are not what they were.
        UsageError: The model has not what the settings ask for, or there is no writer for a format.
        OutputError: A format's folder is taken by something else.
    """
    require_ends(settings, program)
    require_formats(settings.format, writers, run)
    converted = [p for p in dict.fromkeys(settings.precision) if p != "fp32"]
    needed = converted or settings.serving
    images = calibration_batches(program, report, CONVERSION_IMAGES, CONVERSION_BATCH) if needed else []
    programs: tuple[tuple[Role, Program], ...] = (("dense", program), ("sparse", pruned))
    observer.stage("export", f"dense and sparse, {', '.join(dict.fromkeys(['fp32', *settings.precision]))}")
    try:
        run.remove_exports()
        files = [exporter.export(p, run.onnx(r), r, _provenance(program, report, r)) for r, p in programs]
        pairs = [FilePair(dense=files[0], sparse=files[1])]
        for precision in converted:
            observer.message(f"converting to {precision}")
            made = [exporter.convert(f, run.onnx(f.role, precision), precision, images) for f in files]
            pairs.append(FilePair(dense=made[0], sparse=made[1]))
        artifacts = ExportReport(pairs=tuple(pairs), asked=tuple(dict.fromkeys(settings.precision)))
        if settings.serving:
            observer.message("writing and checking files for serving")
            made = [
                exporter.serve(file, run.serving(file.precision), settings, pruned.preprocessing, images)
                for file in (pair.sparse for pair in artifacts.judged)
            ]
            artifacts = artifacts.model_copy(update={"serving": tuple(made)})
        _prove(artifacts, report)
        packages = write_packages(Contents(pruned, report, artifacts), settings.format, writers, run, observer)
    except BaseException:
        run.remove_exports()
        raise
    artifacts = artifacts.model_copy(update={"packages": packages})
    write_text_atomic(run.export, artifacts.model_dump_json(indent=2) + "\n")
    return artifacts


def require_ends(settings: ExportSettings, program: Program) -> None:
    """Refuse output ends that do not fit the model, before minutes are spent.

    Raises:
        UsageError: The first output is not one row of scores for each image, or has fewer classes than asked for.
    """
    if not settings.softmax and settings.top_k is None:
        return
    value = ProgramGraph(program).outputs[0].meta["val"]
    if value.dim() != 2:
        raise UsageError(
            "--softmax and --top-k need a model that scores classes",
            seen=f"a first output of {value.dim()} axes",
            allowed="[batch, classes]",
            fix="leave them out",
        )
    if settings.top_k is not None and settings.top_k > program.classes:
        raise UsageError(
            "--top-k exceeds the model's classes", seen=settings.top_k, allowed=f"at most {program.classes}"
        )


def _prove(artifacts: ExportReport, report: PruneReport) -> None:
    """The layout, on every file with pruned weights."""
    expected, pattern = [d.name for d in report.pruned], Pattern.parse(report.pattern)
    for file in (*(pair.sparse for pair in artifacts.pairs), *artifacts.serving):
        check_onnx(file.path, pattern, expected, report.sparsity)


def load_export(run: RunDirectory) -> ExportReport:
    """What the export stage left; its files must still be what was exported.

    Raises:
        OutputError: Not exported, damaged, or changed since.
    """
    try:
        artifacts = ExportReport.model_validate_json(run.export.read_text(encoding="utf-8"))
        pairs = tuple(
            FilePair(
                dense=_found(p.dense, run.onnx("dense", p.precision)),
                sparse=_found(p.sparse, run.onnx("sparse", p.precision)),
            )
            for p in artifacts.pairs
        )
        serving = tuple(_found(file, run.serving(file.precision)) for file in artifacts.serving)
    except (OSError, ValueError) as error:
        raise OutputError(
            "the directory holds no export", seen=f"{run.path}: {error}", fix="run snowsdeploy export on it first"
        ) from error
    packages = tuple(p.model_copy(update={"folder": run.package(p.format)}) for p in artifacts.packages)
    return artifacts.model_copy(update={"pairs": pairs, "serving": serving, "packages": packages})


def _found(artifact: OnnxArtifact, path: Path) -> OnnxArtifact:
    """The artifact where it lies now; the directory may have moved."""
    with path.open("rb") as stream:
        if file_digest(stream, "sha256").hexdigest() != artifact.sha256:
            raise OutputError("an exported file has changed since its export", seen=path, fix="export again")
    return artifact.model_copy(update={"path": path})


def calibration_batches(program: Program, report: PruneReport, count: int | None, batch: int) -> list[Tensor]:
    """The first of a run's calibration images, in batches `[batch, C, H, W]`.

    Raises:
        DataError: The images cannot be read, or are not what they were.
    """
    source = open_images(report.calibration.source, program.preprocessing)
    items = report.calibration_items[:count]
    if source.info.origin != report.calibration.origin:
        raise DataError(
            "the calibration images have changed since the pruning run",
            seen=report.calibration.source,
            fix="put them back, or prune again",
        )
    return [source.read(items[i : i + batch]) for i in range(0, len(items), batch)]


def _provenance(program: Program, report: PruneReport, role: str) -> dict[str, str]:
    versions = installed_versions(("snowsdeploy", "torch", "onnx", "onnxscript"))
    facts = {
        "role": role,
        "source": Path(program.source.source).name,
        "source_sha256": program.source.sha256 or "none",
        "arch": program.source.arch or "none",
        "pattern": report.pattern,
        "selector": report.selector,
        "solver": ", ".join(f"{k}={v}" for k, v in report.solver.items()),
        "permutation": "none" if report.permutation is None else str(report.permutation),
        "seed": str(report.seed),
        "calibration": report.calibration.fingerprint,
        "mean": ",".join(map(str, program.preprocessing.mean)),
        "std": ",".join(map(str, program.preprocessing.std)),
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
    }
    return {f"snowsdeploy.{key}": value for key, value in facts.items()}
