"""The validation stage: everything is measured on the exported files, then judged and written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import torch
from torch import Tensor

from snowsdeploy.artifacts import (
    Accuracy,
    ExportReport,
    FilePair,
    Latency,
    OnnxArtifact,
    Precision,
    PruneReport,
    Report,
    Variant,
)
from snowsdeploy.config import MeasureSettings
from snowsdeploy.data.images import ImageSet
from snowsdeploy.data.open import open_images
from snowsdeploy.files import write_text_atomic
from snowsdeploy.gate.judge import judge
from snowsdeploy.gate.policy import GatePolicy
from snowsdeploy.models.program import Program
from snowsdeploy.progress import Observer
from snowsdeploy.report.html import render_html
from snowsdeploy.report.markdown import render_markdown
from snowsdeploy.report.store import write_report
from snowsdeploy.run_directory import RunDirectory
from snowsdeploy.sparsity.onnx_layout import check_onnx
from snowsdeploy.sparsity.pattern import Pattern
from snowsdeploy.validation.accuracy import measure_accuracy
from snowsdeploy.validation.compilation import check_compilation
from snowsdeploy.validation.engine import add_engine
from snowsdeploy.validation.engine_account import EngineAccount
from snowsdeploy.validation.engine_build import build_account
from snowsdeploy.validation.environment import describe_environment, peak_memory_bytes
from snowsdeploy.validation.latency import OPENINGS, measure_latency
from snowsdeploy.validation.ort import OrtSession
from snowsdeploy.validation.parity import measure_parity
from snowsdeploy.validation.providers import PROVIDERS

PARITY_BATCHES = (1, 2, 8)


def validate_programs(
    pruned: Program,
    prune_report: PruneReport,
    artifacts: ExportReport,
    run: RunDirectory,
    settings: MeasureSettings,
    *,
    policy: GatePolicy,
    observer: Observer,
    command: str,
    seconds: dict[str, float],
    engines: Mapping[Precision, EngineAccount] | None = None,
) -> Report:
    """Measure everything on the exported files, judge it, and write the report."""
    started = time.perf_counter()
    images = open_images(settings.eval_data, pruned.preprocessing, option="--eval-data") if settings.eval_data else None
    warnings = _warnings(prune_report, images)
    for text in warnings:
        observer.warn(text)
    measurement = _Measurement(pruned, prune_report, artifacts.fp32.dense, images, settings, observer, engines or {})
    report = Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        environment=describe_environment(),
        source=pruned.source,
        preprocessing=pruned.preprocessing,
        prune=prune_report,
        variants=tuple(measurement.variant(pair) for pair in artifacts.judged),
        serving=artifacts.serving,
        packages=artifacts.packages,
        warnings=warnings,
        seconds={**seconds, "validate": time.perf_counter() - started},
        peak_memory_bytes=peak_memory_bytes(),
    )
    return write_verdict(report, policy, run)


@dataclass(frozen=True)
class _Measurement:
    """What every precision is measured with.

    Attributes:
        pruned: The program that the files must agree with.
        prune: Its report.
        reference: The dense file in FP32, which accuracy is compared with.
        images: Evaluation images, if there are any.
        settings: How to measure.
        observer: Told about progress.
        engines: What is known of engines that were built from the sparse files.
    """

    pruned: Program
    prune: PruneReport
    reference: OnnxArtifact
    images: ImageSet | None
    settings: MeasureSettings
    observer: Observer
    engines: Mapping[Precision, EngineAccount] = field(default_factory=dict)

    def variant(self, pair: FilePair) -> Variant:
        """Layout, parity with PyTorch, accuracy, and latency against the dense file of the same precision."""
        provider = self.settings.provider
        self.observer.stage("validate", f"{pair.precision}: parity, accuracy and latency on {provider}")
        expected = [d.name for d in self.prune.pruned]
        evidence = check_onnx(pair.sparse.path, Pattern.parse(self.prune.pattern), expected, self.prune.sparsity)
        engine = None
        account = self.engines.get(pair.precision) or build_account(pair.sparse.path, self.settings)
        if account is not None:
            evidence, engine = add_engine(evidence, account)
        dense, sparse = (OrtSession.open(a.path, self.settings) for a in (pair.dense, pair.sparse))
        return Variant(
            dense=pair.dense,
            sparse=pair.sparse,
            sparsity=evidence,
            parity=measure_parity(self.pruned.run, sparse, _parity_batches(self.pruned, self.images)),
            accuracy=self._accuracy(pair, dense, sparse),
            latency=self._latency(pair),
            compilation=check_compilation(pair.sparse.path, self.settings.compile_for)
            if self.settings.compile_for
            else None,
            engine=engine,
        )

    def _latency(self, pair: FilePair) -> Latency:
        compiles = bool(PROVIDERS[self.settings.provider].cache)
        return measure_latency(
            lambda: (OrtSession.open(pair.dense.path, self.settings), OrtSession.open(pair.sparse.path, self.settings)),
            lambda batch: _random_images(self.pruned, batch).numpy(),
            self.settings.latency_batch,
            runs=self.settings.latency_runs,
            openings=1 if compiles else OPENINGS,
        )

    def _accuracy(self, pair: FilePair, dense: OrtSession, sparse: OrtSession) -> Accuracy | None:
        if self.images is None:
            return None
        batch, step = self.settings.eval_batch, self.observer.advance
        if pair.dense == self.reference:
            return measure_accuracy(dense, sparse, self.images, batch, progress=step)
        full = OrtSession.open(self.reference.path, self.settings)
        return measure_accuracy(full, sparse, self.images, batch, same_precision=dense, progress=step)


def write_verdict(report: Report, policy: GatePolicy, run: RunDirectory) -> Report:
    """Judge a report and write `report.json`, `summary.md` and `report.html`."""
    report = report.model_copy(update={"verdict": judge(report, policy)})
    write_report(report, run.report)
    write_text_atomic(run.summary, render_markdown(report))
    write_text_atomic(run.page, render_html(report))
    return report


def _parity_batches(program: Program, images: ImageSet | None) -> Sequence[Tensor]:
    """Real images when there are some, so that the outputs compared are those that matter."""
    if images is not None and len(images) >= max(PARITY_BATCHES):
        return [images.read(images.indices[:n]) for n in PARITY_BATCHES]
    return [_random_images(program, n) for n in PARITY_BATCHES]


def _random_images(program: Program, count: int) -> Tensor:
    return torch.randn(count, *program.preprocessing.input_size, generator=torch.Generator().manual_seed(0))


def _warnings(report: PruneReport, images: ImageSet | None) -> tuple[str, ...]:
    rows = []
    if images is None:
        rows.append("No --eval-data: accuracy is not measured.")
    elif images.info.origin == report.calibration.origin:
        shared = len(set(images.indices) & set(report.calibration_items))
        if shared:
            text = f"{shared} images of --eval-data are also in --data: the accuracy is optimistic."
            rows.append(f"{text} Judge on images that were not calibrated on.")
    return tuple(rows)
