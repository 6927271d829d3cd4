"""The validation stage: everything is measured on the exported files; what was measured before can stay."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, Literal, get_args

from snowsdeploy.batch import Batch
from snowsdeploy.data.samples import Samples
from snowsdeploy.engines.account import EngineAccount
from snowsdeploy.engines.build import build_account
from snowsdeploy.engines.evidence import add_engine
from snowsdeploy.errors import OutputError, ProviderError
from snowsdeploy.layout.onnx_layout import check_onnx
from snowsdeploy.measure.compilation import check_compilation
from snowsdeploy.measure.latency import OPENINGS, latency_note, measure_latency
from snowsdeploy.measure.parity import measure_parity
from snowsdeploy.models.fp32 import run_in_fp64
from snowsdeploy.models.program import Program
from snowsdeploy.models.signature import random_batch
from snowsdeploy.models.sizes import other_sizes, resampled, sized
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.progress import NullObserver, Observer
from snowsdeploy.runtime.environment import describe_environment, peak_memory_bytes
from snowsdeploy.runtime.providers import PROVIDERS
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.runtime.survival import native_crashes
from snowsdeploy.settings.validate import MeasureSettings
from snowsdeploy.stages.prune import Pruned
from snowsdeploy.stages.task import judge_of, task_remarks
from snowsdeploy.tasks.evaluate import Evaluated, Judge, Run, evaluate
from snowsdeploy.values import (
    Accuracy,
    EngineEvidence,
    ExportReport,
    FilePair,
    InputInfo,
    Latency,
    OnnxArtifact,
    Precision,
    PruneReport,
    Report,
    SparsityEvidence,
    Variant,
)

PARITY_BATCHES = (1, 2, 8)
CALIBRATION_ITEMS = 256  # on which outputs are compared where there is no evaluation data

Section = Literal["layout", "engine", "parity", "accuracy", "latency", "compilation"]
SECTIONS: tuple[Section, ...] = get_args(Section)
RUN_HERE: frozenset[Section] = frozenset({"parity", "accuracy", "latency"})  # what runs the files on this machine
_PARTS: dict[Section, str] = {name: "sparsity" if name == "layout" else name for name in SECTIONS}  # of a variant


def validate(
    pruned: Pruned,
    files: ExportReport,
    evaluation: Samples | None = None,
    settings: MeasureSettings | None = None,
    *,
    judge: Judge | None = None,
    engines: Mapping[Precision, EngineAccount] | None = None,
    before: Report | None = None,
    renew: Collection[Section] = SECTIONS,
    observer: Observer | None = None,
) -> Report:
    """Measure the exported files; the report is not judged yet.

    Args:
        pruned: The program that the files must agree with.
        files: What the export stage wrote.
        evaluation: What accuracy is measured on; without it there is none.
        settings: Where and how to measure.
        judge: What the outputs mean, if that is known already.
        engines: What is known of engines that were built from the sparse files.
        before: A report of the same files, whose other sections stay.
        renew: What is measured anew. A file that `before` does not know is measured as a whole.
        observer: Told about progress, and what was kept.

    Raises:
        LayoutError: A pruned layer does not hold the pattern.
        NumericsError: An output is NaN or Inf.
        ProviderError: A file does not run where it should.
        DataError: The evaluation images do not fit the model.
        SourceError: An account of an engine is of another model.
        OutputError: A sparse file is another than was exported.
    """
    started = time.perf_counter()
    settings, observer = settings or MeasureSettings(), observer or NullObserver()
    judge = judge or judge_of(settings, pruned.dense, evaluation)
    measurement = _Measurement(pruned, files.fp32.dense, evaluation, judge, settings, observer, engines or {})
    known = known_variants(before, files)
    renewed = {p.precision: measurement.sections(p, known.get(p.precision), renew) for p in files.judged}
    if _any(renewed, "accuracy"):
        warnings = _warnings(pruned.report, evaluation)
        for text in warnings:
            observer.warn(text)
        remarks = task_remarks(judge, evaluation, pruned.dense)  # told when the images were opened
        warnings = (*remarks, *warnings)
    else:
        warnings = before.warnings if before else ()
    crashes = measurement.crashes([pair for pair in files.judged if renewed[pair.precision] & RUN_HERE])
    runnable = [pair for pair in files.judged if pair.precision not in crashes]
    outputs = measurement.outputs([pair for pair in runnable if "accuracy" in renewed[pair.precision]])
    variants = tuple(
        measurement.crashed(pair, crashes[pair.precision])
        if pair.precision in crashes
        else measurement.variant(pair, outputs, known.get(pair.precision), renewed[pair.precision])
        for pair in files.judged
    )
    for text in _account(renewed, known, variants):
        observer.message(text)
    seconds = dict(before.seconds) if before and known else {"prune": pruned.report.seconds}
    here = any(sections & RUN_HERE for sections in renewed.values())
    whole = all(sections >= RUN_HERE for sections in renewed.values())
    took = time.perf_counter() - started + (0.0 if whole else seconds.get("validate", 0.0))
    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        commands=(),
        environment=before.environment if before and not here else describe_environment(),
        source=pruned.dense.source,
        preprocessing=pruned.dense.preprocessing,
        signature=pruned.dense.signature,
        prune=pruned.report,
        variants=variants,
        serving=files.serving,
        packages=files.packages,
        warnings=warnings,
        seconds={**seconds, "validate": took},
        peak_memory_bytes=max(peak_memory_bytes(), (before.peak_memory_bytes or 0) if before else 0),
    )


def crashed_on_dense(how: str, provider: str) -> ProviderError:
    """What is wrong where not even the dense model runs."""
    return ProviderError(
        f"ONNX Runtime ends with a {how} when it runs the dense model",
        seen=f"--provider {provider}",
        allowed="a dense model that runs, since the sparse one is compared with it",
        fix="try another version of onnxruntime, another --provider or another --opset",
    )


def require_sizes(settings: MeasureSettings, program: Program) -> None:
    """Refuse sizes to time that the model does not take, before minutes are spent.

    Raises:
        UsageError: There is one.
    """
    for text in settings.latency_size:
        sized(program.inputs, program.signature.dynamic, text)


def known_variants(before: Report | None, files: ExportReport) -> dict[Precision, Variant]:
    """What an earlier report says of the files that are judged now, by precision."""
    digests = {pair.precision: (pair.dense.sha256, pair.sparse.sha256) for pair in files.judged}
    variants = before.variants if before else ()
    return {v.precision: v for v in variants if digests.get(v.precision) == (v.dense.sha256, v.sparse.sha256)}


def renewed_sections(before: Mapping[Precision, Variant], report: Report) -> tuple[Section, ...] | None:
    """Which sections of a report are not those of an earlier one; None where nothing of that was kept."""
    values = [
        (name, getattr(before.get(v.precision), part, None), getattr(v, part))
        for v in report.variants
        for name, part in _PARTS.items()
    ]
    if not any(was is not None and was is now for _, was, now in values):
        return None
    new = {name for name, was, now in values if was is not now}
    return tuple(name for name in SECTIONS if name in new)


def _any(renewed: Mapping[Precision, set[Section]], section: Section) -> bool:
    return any(section in sections for sections in renewed.values())


def _account(
    renewed: Mapping[Precision, set[Section]], known: Mapping[Precision, Variant], made: Sequence[Variant]
) -> Iterator[str]:
    """What is new and what was kept, a line for each precision where something was kept."""
    for variant in made:
        precision, sections = variant.precision, renewed[variant.precision]
        there = [name for name, part in _PARTS.items() if getattr(known.get(precision), part, None) is not None]
        kept = [name for name in there if name not in sections]
        if kept:
            measured = [n for n in SECTIONS if n in sections and getattr(variant, _PARTS[n]) is not None]
            new = ", ".join(measured) or "nothing"
            yield f"{precision}: measured now: {new}; kept from the earlier report: {', '.join(kept)}"


@dataclass(frozen=True)
class _Measurement:
    """What every precision is measured with.

    Attributes:
        pruned: What the files must agree with.
        reference: The dense file in FP32, which accuracy is compared with.
        evaluation: Evaluation images, if there are any.
        judge: What the outputs mean.
        settings: How to measure.
        observer: Told about progress.
        engines: What is known of engines that were built from the sparse files.
    """

    pruned: Pruned
    reference: OnnxArtifact
    evaluation: Samples | None
    judge: Judge
    settings: MeasureSettings
    observer: Observer
    engines: Mapping[Precision, EngineAccount] = field(default_factory=dict)

    def sections(self, pair: FilePair, before: Variant | None, renew: Collection[Section]) -> set[Section]:
        """What is measured of a pair: all of files that no report knows; of others what is asked for and can be."""
        if before is None:
            return set(SECTIONS)
        builds = pair.precision in self.engines or bool(PROVIDERS[self.settings.provider].build_log)
        impossible: set[Section] = set() if builds or before.engine is None else {"layout", "engine"}
        impossible |= {"accuracy"} if self.items is None else set()
        impossible |= set() if self.settings.compile_for else {"compilation"}
        return set(renew) - impossible

    def crashes(self, pairs: Sequence[FilePair]) -> dict[Precision, str]:
        """How ONNX Runtime ends a process that runs one of the files, by precision; of none that only raises.

        Raises:
            ProviderError: It is the dense file in FP32, without which nothing can be compared.
        """
        files = {f.path for p in pairs for f in (p.dense, p.sparse)}
        found = native_crashes(sorted(files | ({self.reference.path} if files else set())), self.settings)
        if self.reference.path in found:
            raise crashed_on_dense(found[self.reference.path], self.settings.provider)
        words = {p.precision: found.get(p.dense.path) or found.get(p.sparse.path, "") for p in pairs}
        for precision, how in words.items():
            if how:
                self.observer.warn(f"{precision}: ONNX Runtime on {self.settings.provider} ends with a {how}")
        return {precision: how for precision, how in words.items() if how}

    def crashed(self, pair: FilePair, how: str) -> Variant:
        """What can be said of files that cannot be run."""
        sparsity, engine = self._layout(pair, build=False)
        return Variant(dense=pair.dense, sparse=pair.sparse, sparsity=sparsity, engine=engine, crash=how)

    @cached_property
    def items(self) -> Samples | None:
        """What outputs are compared on: the evaluation data, else what the model was calibrated on, if at hand."""
        if self.evaluation is not None or self.pruned.samples is None:
            return self.evaluation
        samples, batch = self.pruned.samples, self.pruned.samples.fixed or 1
        chosen = samples.select(samples.indices[: max(CALIBRATION_ITEMS // batch, 1) * batch])
        return chosen.remembered_if_small()

    def outputs(self, pairs: list[FilePair]) -> Evaluated[str] | None:
        """Of the FP32 dense file and both files of every pair, by digest: one pass over the items."""
        items = self.items
        if items is None or not pairs:
            return None
        files = {f.sha256: f for f in (self.reference, *(f for p in pairs for f in (p.dense, p.sparse)))}
        what = "" if self.evaluation is not None else " of the calibration"
        self.observer.stage("accuracy", f"{len(items)} images{what}, {len(files)} files on {self.settings.provider}")
        sessions = {digest: OrtSession.open(f.path, self.settings) for digest, f in files.items()}
        judge = self.judge if self.evaluation is not None else self.judge.without_targets()
        runs = {digest: _run_of(session) for digest, session in sessions.items()}
        batch, progress = self.settings.eval_batch, self.observer.advance
        names = {digest: f.path.name for digest, f in files.items()}
        return evaluate(runs, self.reference.sha256, items, judge, batch_size=batch, names=names, progress=progress)

    def variant(
        self, pair: FilePair, outputs: Evaluated[str] | None, before: Variant | None, sections: set[Section]
    ) -> Variant:
        """Layout, parity with PyTorch, accuracy, and latency against the dense file of the same precision."""
        if sections:
            parts = [name for name in ("parity", "latency") if name in sections]
            what = f"{' and '.join(parts)} on {self.settings.provider}" if parts else ", ".join(sorted(sections))
            self.observer.stage("validate", f"{pair.precision}: {what}")
        values: dict[str, Any] = dict.fromkeys(_PARTS.values())
        if before is not None:
            values |= {part: getattr(before, part) for name, part in _PARTS.items() if name not in sections}
            values["crash"] = "" if sections & RUN_HERE else before.crash
            self._prove(pair)
        if sections & {"layout", "engine"}:
            values["sparsity"], values["engine"] = self._layout(pair)
        if "parity" in sections:
            sparse = OrtSession.open(pair.sparse.path, self.settings)
            values["parity"] = measure_parity(
                self.pruned.sparse.run,
                sparse,
                self._parity_batches(),
                partial(run_in_fp64, self.pruned.sparse) if pair.precision == "fp32" else None,
            )
        if "accuracy" in sections and outputs is not None:
            values["accuracy"] = self._accuracy(pair, outputs)
        if "latency" in sections:
            values["latency"] = self._latency(pair)
        if "compilation" in sections and self.settings.compile_for:
            values["compilation"] = check_compilation(pair.sparse.path, self.settings.compile_for)
        return Variant(dense=pair.dense, sparse=pair.sparse, **values)

    def _prove(self, pair: FilePair) -> SparsityEvidence:
        """The layout in the file; read again whatever else is kept."""
        report = self.pruned.report
        expected = [d.name for d in report.pruned]
        evidence = check_onnx(pair.sparse.path, Pattern.parse(report.pattern), expected, report.sparsity)
        if evidence.sha256 != pair.sparse.sha256:
            raise OutputError(
                "an exported file has changed since its export",
                seen=f"{pair.sparse.path}: sha256 {evidence.sha256}",
                allowed=f"sha256 {pair.sparse.sha256}",
                fix="export again",
            )
        return evidence

    def _layout(self, pair: FilePair, *, build: bool = True) -> tuple[SparsityEvidence, EngineEvidence | None]:
        """The layout, and what an engine made of it."""
        evidence, account = self._prove(pair), self.engines.get(pair.precision)
        if account is None and build:
            signature = self.pruned.dense.signature
            account = build_account(pair.sparse.path, self.settings, signature.batch or 1, signature.traced_sizes)
        return (evidence, None) if account is None else add_engine(evidence, account)

    def _latency(self, pair: FilePair) -> Latency:
        """At each size that is asked for; at the traced one without."""
        signature = self.pruned.dense.signature
        found = [
            self._latency_at(pair, sized(signature.inputs, signature.dynamic, size), size)
            for size in dict.fromkeys(self.settings.latency_size or ("",))
        ]
        series = tuple(row for one in found for row in one.series)
        ratios = tuple(row for one in found for row in one.ratios)
        note = latency_note(PROVIDERS[found[0].requested], series, self.pruned.report.pattern)
        return found[0].model_copy(update={"series": series, "ratios": ratios, "note": note})

    def _latency_at(self, pair: FilePair, inputs: Sequence[InputInfo], size: str) -> Latency:
        fixed = self.pruned.dense.signature.batch
        compiles = bool(PROVIDERS[self.settings.provider].cache)
        found = measure_latency(
            lambda: (OrtSession.open(pair.dense.path, self.settings), OrtSession.open(pair.sparse.path, self.settings)),
            lambda batch: random_batch(inputs, batch, 0).numpy(),
            [fixed] if fixed else list(dict.fromkeys(self.settings.latency_batch)),
            runs=self.settings.latency_runs,
            openings=1 if compiles else OPENINGS,
            pattern=self.pruned.report.pattern,
        )
        update = {"size": size}
        return found.model_copy(
            update={
                "series": tuple(row.model_copy(update=update) for row in found.series),
                "ratios": tuple(row.model_copy(update=update) for row in found.ratios),
            }
        )

    def _accuracy(self, pair: FilePair, outputs: Evaluated[str]) -> Accuracy:
        return outputs.accuracy(
            pair.sparse.sha256,
            None if pair.dense == self.reference else pair.dense.sha256,
            provider=PROVIDERS[self.settings.provider].name,
            calibration=self.evaluation is None,
        )

    def _parity_batches(self) -> list[Batch]:
        """Real images when there are some, so that the outputs compared are those that matter."""
        fixed = self.pruned.dense.signature.batch
        sizes = PARITY_BATCHES if fixed is None else (fixed,)
        items = self.items
        if items is not None and len(items) >= max(sizes):
            batches = [items.rows(0, n) for n in sizes]
        else:
            batches = [random_batch(self.pruned.dense.inputs, n, 0) for n in sizes]
        return [*batches, *(resampled(batches[-1][: fixed or 2], inputs) for inputs in self._other_sizes())]

    def _other_sizes(self) -> list[tuple[InputInfo, ...]]:
        """Those asked for, and two more that the program takes, where axes vary."""
        signature = self.pruned.dense.signature
        asked = [sized(signature.inputs, signature.dynamic, text) for text in self.settings.latency_size]
        return list(dict.fromkeys([*asked, *other_sizes(self.pruned.dense)]))


def _run_of(session: OrtSession) -> Run:
    return lambda batch: session.run(batch.numpy())


def _warnings(report: PruneReport, evaluation: Samples | None) -> tuple[str, ...]:
    rows = []
    if evaluation is None:
        rows.append("No --eval-data: accuracy is not measured.")
    elif evaluation.info.origin == report.calibration.origin:
        shared = len(set(evaluation.indices) & set(report.calibration_items))
        if shared:
            text = f"{shared} images of --eval-data are also in --data: the accuracy is optimistic."
            rows.append(f"{text} Judge on images that were not calibrated on.")
    return tuple(rows)
