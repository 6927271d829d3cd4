"""The export stage: a dense and a sparse file for each precision, the layout proven in every sparse one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from snowsdeploy.batch import Batch
from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import UsageError
from snowsdeploy.layout.onnx_layout import check_onnx
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.progress import NullObserver, Observer
from snowsdeploy.runtime.environment import installed_versions
from snowsdeploy.settings.export import METADATA_PREFIX, ExportSettings
from snowsdeploy.stages.packages import Contents, Place, Writers, require_formats, write_packages
from snowsdeploy.stages.prune import Pruned
from snowsdeploy.values import ExportReport, FilePair, OnnxArtifact, Precision, Preprocessing, PruneReport, Role

CONVERSION_IMAGES, CONVERSION_BATCH = 128, 8  # what ranges of activations are measured on


class Exporter(Protocol):
    """Writes a program to a file, and that file in other precisions."""

    def export(self, program: Program, path: Path, role: Role, metadata: Mapping[str, str]) -> OnnxArtifact:
        """See `snowsdeploy_exporters.OnnxExporter`."""

    def convert(self, source: OnnxArtifact, path: Path, precision: Precision, images: Sequence[Batch]) -> OnnxArtifact:
        """See `snowsdeploy_exporters.OnnxExporter`."""

    def serve(
        self,
        source: OnnxArtifact,
        path: Path,
        settings: ExportSettings,
        preprocessing: Preprocessing | None,
        images: Sequence[Batch],
    ) -> OnnxArtifact:
        """See `snowsdeploy_exporters.OnnxExporter`."""


def needs_samples(settings: ExportSettings) -> bool:
    """Whether calibration images are looked at: for the ranges of a conversion, or to compare a serving file."""
    return settings.serving or any(precision != "fp32" for precision in settings.precision)


def export(
    pruned: Pruned,
    settings: ExportSettings | None = None,
    *,
    exporter: Exporter,
    place: Place,
    samples: Samples | None = None,
    writers: Writers | None = None,
    observer: Observer | None = None,
) -> ExportReport:
    """Write a dense and a sparse file for FP32 and each other precision, and what is made from them; all or none stay.

    Args:
        pruned: What is written.
        settings: Which files.
        exporter: Writes one.
        place: Where each file goes.
        samples: Calibration images, where `needs_samples`; those that it was pruned on when not given.
        writers: Of the formats beside ONNX.
        observer: Told about progress.

    Raises:
        ExportError: As the exporter says.
        LayoutError: A pruned layer does not hold the pattern in a sparse file.
        UsageError: The model has not what the settings ask for, there is no writer for a format, or no samples.
        OutputError: A format's folder is taken by something else.
    """
    settings, writers, observer = settings or ExportSettings(), writers or {}, observer or NullObserver()
    samples, report = samples or pruned.samples, pruned.report
    require_ends(settings, pruned.dense)
    require_formats(settings.format, writers, place)
    converted = [p for p in dict.fromkeys(settings.precision) if p != "fp32"]
    images = _conversion_images(samples) if needs_samples(settings) else []
    programs: tuple[tuple[Role, Program], ...] = (("dense", pruned.dense), ("sparse", pruned.sparse))
    observer.stage("export", f"dense and sparse, {', '.join(dict.fromkeys(['fp32', *settings.precision]))}")
    try:
        place.remove_exports()
        metadata = {r: settings.metadata | _provenance(pruned.dense, report, r) for r, _ in programs}
        files = [exporter.export(p, place.onnx(r), r, metadata[r]) for r, p in programs]
        pairs = [FilePair(dense=files[0], sparse=files[1])]
        for precision in converted:
            observer.message(f"converting to {precision}")
            made = [exporter.convert(f, place.onnx(f.role, precision), precision, images) for f in files]
            pairs.append(FilePair(dense=made[0], sparse=made[1]))
        artifacts = ExportReport(pairs=tuple(pairs), asked=tuple(dict.fromkeys(settings.precision)))
        if settings.serving:
            observer.message("writing and checking files for serving")
            made = [
                exporter.serve(file, place.serving(file.precision), settings, pruned.dense.preprocessing, images)
                for file in (pair.sparse for pair in artifacts.judged)
            ]
            artifacts = artifacts.model_copy(update={"serving": tuple(made)})
        _prove(artifacts, report)
        packages = write_packages(Contents(pruned.sparse, report, artifacts), settings.format, writers, place, observer)
    except BaseException:
        place.remove_exports()
        raise
    return artifacts.model_copy(update={"packages": packages})


def _conversion_images(samples: Samples | None) -> list[Batch]:
    if samples is None:
        raise UsageError(
            "--precision and serving files need calibration images",
            seen="no images",
            allowed="the images that the run was pruned on",
            fix="name them with --data, or leave out --precision, --uint8-input, --softmax and --top-k",
        )
    return samples.first(CONVERSION_IMAGES, CONVERSION_BATCH)


def require_ends(settings: ExportSettings, program: Program) -> None:
    """Refuse ends that do not fit the model, before minutes are spent.

    Raises:
        UsageError: Nothing says how pixels become its input; its first output is not one row of scores for each image,
            or has fewer classes than asked for.
    """
    if settings.uint8_input and (program.preprocessing is None or not program.preprocessing.known):
        raise UsageError(
            "--uint8-input needs mean and deviation of the pixels",
            seen="images that were given as tensors, and a model that does not say",
            allowed="a run that knows both, from the architecture or from its options",
            fix="prune again with mean and std (--mean, --std)",
        )
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
            "--top-k exceeds the model's classes",
            seen=f"--top-k {settings.top_k}",
            allowed=f"from 1 to {program.classes}",
            fix="lower --top-k",
        )


def _prove(artifacts: ExportReport, report: PruneReport) -> None:
    """The layout, on every file with pruned weights."""
    expected, pattern = [d.name for d in report.pruned], Pattern.parse(report.pattern)
    for file in (*(pair.sparse for pair in artifacts.pairs), *artifacts.serving):
        check_onnx(file.path, pattern, expected, report.sparsity)


def _pixels(preprocessing: Preprocessing | None) -> dict[str, str]:
    """Mean and deviation, where the model takes an image."""
    if preprocessing is None:
        return {}
    return {name: ",".join(map(str, getattr(preprocessing, name))) for name in ("mean", "std")}


def _provenance(program: Program, report: PruneReport, role: str) -> dict[str, str]:
    """Nothing for a user's own ONNX file, in which only weights change."""
    if program.file is not None:
        return {}
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
        **_pixels(program.preprocessing),
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
    }
    return {f"{METADATA_PREFIX}{key}": value for key, value in facts.items()}
