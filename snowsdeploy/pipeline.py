"""The main job and its stages as Python functions; the command line calls these and nothing else.

    load_program -> open_data -> prune -> export -> validate -> judge

A run directory holds what each stage left: `program.pt2` (dense), `pruned.safetensors` and `prune.json`, `dense.onnx`
and `model.onnx`, `report.json` and `summary.md`. Exporters come in as values, so that the library never imports them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Literal, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from snowsdeploy.artifacts import ExportReport, OnnxArtifact, Preprocessing, PruneReport, Report
from snowsdeploy.config import ModelSettings, PruneSettings, RunConfig, ValidateSettings
from snowsdeploy.data.images import ImageSet
from snowsdeploy.data.open import natural_input_size, open_images
from snowsdeploy.errors import OutputError, UsageError
from snowsdeploy.files import atomic_path, write_text_atomic
from snowsdeploy.gate.judge import judge
from snowsdeploy.gate.policy import GatePolicy, load_policy
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program, saved_source
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.models.trace import adopt, trace
from snowsdeploy.progress import NullObserver, Observer
from snowsdeploy.pruning.prune import Checkpoints, Plan, prune_program, run_key
from snowsdeploy.pruning.reconstruct import Reconstruction
from snowsdeploy.report.markdown import render_markdown
from snowsdeploy.report.store import write_report
from snowsdeploy.run_directory import RunDirectory
from snowsdeploy.solver.cg import ConjugateGradient
from snowsdeploy.solver.newton import NewtonCG
from snowsdeploy.sparsity.onnx_layout import check_onnx
from snowsdeploy.sparsity.pattern import Pattern
from snowsdeploy.validation.accuracy import measure_accuracy
from snowsdeploy.validation.environment import describe_environment, installed_versions, peak_memory_bytes
from snowsdeploy.validation.latency import measure_latency
from snowsdeploy.validation.ort import OrtSession
from snowsdeploy.validation.parity import measure_parity
from snowsdeploy.validation.probe import require_provider

PARITY_BATCHES = (1, 2, 8)


class Exporter(Protocol):
    """Writes a program to a file."""

    def export(
        self, program: Program, path: Path, role: Literal["dense", "sparse"], metadata: Mapping[str, str]
    ) -> OnnxArtifact:
        """See `snowsdeploy_exporters.OnnxExporter`."""


def prune_export(config: RunConfig, exporter: Exporter, observer: Observer | None = None, command: str = "") -> Report:
    """Checkpoint -> pruned, verified ONNX model, its evidence and verdict.

    Args:
        config: All settings.
        exporter: Writes the ONNX files.
        observer: Told about progress.
        command: Recorded in the report, for repeating the run.

    Raises:
        SnowsDeployError: Any of its subclasses; see `snowsdeploy.errors`.
    """
    observer = observer or NullObserver()
    policy = load_policy(config.policy) if config.policy else GatePolicy()
    run = RunDirectory(config.out)
    program, pruned, report = _prune(config, run, observer)
    seconds = {"prune": report.seconds}
    started = time.perf_counter()
    observer.stage("export", f"dense.onnx and model.onnx, opset {config.opset}")
    artifacts = export_programs(program, pruned, report, run, exporter)
    seconds["export"] = time.perf_counter() - started
    return validate_programs(
        pruned, report, artifacts, run, config, policy=policy, observer=observer, command=command, seconds=seconds
    )


def prune(config: RunConfig, observer: Observer | None = None) -> PruneReport:
    """The pruning stage alone; leaves `program.pt2`, `pruned.safetensors` and `prune.json`.

    Raises:
        SnowsDeployError: As `prune_export`.
    """
    run = RunDirectory(config.out)
    return _prune(config, run, observer or NullObserver())[2]


def export(folder: Path, exporter: Exporter, observer: Observer | None = None) -> ExportReport:
    """The export stage alone, on what `prune` left.

    Raises:
        SnowsDeployError: As `prune_export`.
    """
    run = RunDirectory(folder)
    program, pruned, report = load_run(run)
    (observer or NullObserver()).stage("export", "dense.onnx and model.onnx")
    return export_programs(program, pruned, report, run, exporter)


def validate(
    folder: Path,
    settings: ValidateSettings,
    *,
    policy: GatePolicy,
    observer: Observer | None = None,
    command: str = "",
) -> Report:
    """The validation stage alone, on what `prune` and `export` left.

    Raises:
        SnowsDeployError: As `prune_export`.
    """
    run = RunDirectory(folder)
    require_provider(settings.provider)
    _, pruned, report = load_run(run)
    artifacts = load_export(run)
    return validate_programs(
        pruned,
        report,
        artifacts,
        run,
        settings,
        policy=policy,
        observer=observer or NullObserver(),
        command=command,
        seconds={"prune": report.seconds},
    )


def load_program(settings: ModelSettings, data: str | None = None) -> Program:
    """MODEL -> program; the input size comes from the options, the architecture or the data, in this order.

    Raises:
        SourceError: The model cannot be loaded.
        GraphError: It cannot be traced.
        UsageError: Nothing tells the preprocessing.
    """
    request = ModelRequest(settings.model, settings.arch, settings.model_arg, settings.allow_pickle)
    loaded = load_model(request)
    preprocessing = _preprocessing(settings, loaded.preprocessing, data)
    if isinstance(loaded.model, nn.Module):
        return trace(loaded.model, preprocessing, loaded.source)
    return adopt(loaded.model, preprocessing, loaded.source)


def _preprocessing(settings: ModelSettings, known: Preprocessing | None, data: str | None) -> Preprocessing:
    natural = natural_input_size(data) if data else None
    size = settings.input_size or natural or (known.input_size if known else None)
    mean, std = settings.mean or (known.mean if known else None), settings.std or (known.std if known else None)
    lacking = [n for n, v in (("--input-size", size), ("--mean", mean), ("--std", std)) if v is None]
    if size is None or mean is None or std is None:
        raise UsageError(
            "nothing says how images become the model's input",
            seen=f"not given: {', '.join(lacking)}",
            allowed="for example --input-size 3,224,224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        )
    for option, values in (("--mean", mean), ("--std", std)):
        if len(values) != size[0]:
            raise UsageError(
                f"{option} does not fit the input", seen=f"{len(values)} values", allowed=f"{size[0]} values"
            )
    base = known or Preprocessing(input_size=size, mean=mean, std=std)
    update = {
        "input_size": size,
        "mean": mean,
        "std": std,
        "interpolation": settings.interpolation or base.interpolation,
        "crop_pct": settings.crop_pct or base.crop_pct,
    }
    return base.model_copy(update=update)


def _prune(config: RunConfig, run: RunDirectory, observer: Observer) -> tuple[Program, Program, PruneReport]:
    started = time.perf_counter()
    run.require_free(force=config.force, resume=config.resume)
    require_provider(config.provider)  # before minutes are spent
    observer.stage("load", config.model)
    torch.manual_seed(config.seed)
    program = load_program(config, config.data)
    pattern = Pattern.parse(config.pattern)
    decisions = decide_layers(ProgramGraph(program), pattern, config.include, config.exclude)
    calibration = open_images(config.data, program.preprocessing).sample(config.samples, config.seed)
    if config.eval_data:  # opened now, so that a wrong path is known before minutes are spent
        open_images(config.eval_data, program.preprocessing, option="--eval-data")
    run.prepare(force=config.force, resume=config.resume)
    settings = config.model_dump(include=set(PruneSettings.model_fields) - {"data"})
    key = run_key(state=_digest(program), data=calibration.info.fingerprint, **settings)
    observer.stage("prune", f"{config.pattern}, {len(calibration)} images")
    for decision in decisions:
        observer.message(_decision_text(decision.name, decision.shape, decision.reason))
    batches = list(calibration.batches(config.batch_size))
    pruned = prune_program(
        program,
        batches,
        [d.weight for d in decisions if d.prunable and d.weight],
        pattern,
        make_plan(config, len(batches)),
        observer=observer,
        checkpoints=Checkpoints(run.layers, key),
    )
    for note in pruned.notes:
        observer.message(note)
    report = PruneReport(
        pattern=config.pattern,
        selector=config.selector,
        solver=solver_settings(config),
        decisions=decisions,
        solves=pruned.units,
        final=pruned.final,
        notes=pruned.notes,
        calibration=calibration.info,
        calibration_items=calibration.indices,
        seconds=time.perf_counter() - started,
        seed=config.seed,
    )
    program.save(run.program)
    with atomic_path(run.weights) as path:
        save_file({n: w.contiguous() for n, w in pruned.tensors.items()}, path)
    write_text_atomic(run.prune, report.model_dump_json(indent=2) + "\n")
    shutil.rmtree(run.layers, ignore_errors=True)
    return program, program.with_weights(pruned.tensors), report


def make_plan(settings: PruneSettings, batches: int) -> Plan:
    """What the settings say to solve, for so many calibration batches.

    Raises:
        UsageError: `--held-back` leaves a side without a batch.
    """
    exact = settings.newton_steps == 0 or settings.horizon == 0
    newton = NewtonCG(max_steps=settings.newton_steps, cg=ConjugateGradient(max_iterations=settings.cg_steps))
    curvature = settings.curvature_samples
    method = Reconstruction(
        horizon=settings.horizon,
        targets=_target_share(settings.targets),
        newton=None if exact else newton,
        curvature=settings.curvature,
        curvature_batches=None if curvature == "all" else max(1, curvature // settings.batch_size),
        preconditioner=settings.preconditioner,
        free=settings.variables == "all",
        reduced=torch.bfloat16 if settings.products == "bfloat16" else None,
    )
    held_back = max(1, round(settings.held_back * batches)) if settings.held_back else 0
    if held_back >= batches:
        raise UsageError(
            "--held-back leaves no images to solve on",
            seen=f"{batches} batch of {settings.batch_size}",
            fix="use more --samples or a smaller --batch-size",
        )
    final = replace(method, newton=replace(newton, max_steps=settings.final_steps)) if settings.final_steps else None
    return Plan(
        method,
        selector=settings.selector,
        joint=settings.joint,
        layers=settings.solve_layers,
        sensitivity=settings.sensitivity,
        held_back=held_back,
        reestimate=settings.reestimate_norms,
        final=final,
    )


def _target_share(targets: float | Literal["dense", "input", "auto"]) -> float | Literal["auto"]:
    if targets == "dense":
        return 1.0
    return 0.0 if targets == "input" else targets


_SOLVER_SETTINGS = (
    "effort",
    "held_back",
    "horizon",
    "joint",
    "solve_layers",
    "targets",
    "sensitivity",
    "curvature",
    "preconditioner",
    "newton_steps",
    "cg_steps",
    "curvature_samples",
    "products",
    "variables",
    "reestimate_norms",
    "final_steps",
    "batch_size",
)


def solver_settings(settings: PruneSettings) -> dict[str, str | int | float | bool]:
    """The settings that decide the solve, for reports and provenance."""
    values = {name: getattr(settings, name) for name in _SOLVER_SETTINGS}
    return {name: "all" if value is None else value for name, value in values.items()}


def _digest(program: Program) -> str:
    digest = sha256()
    for name, tensor in sorted(program.state_dict.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()


def _decision_text(name: str, shape: tuple[int, ...], reason: str) -> str:
    return f"{name} {'x'.join(map(str, shape))}: {reason or 'pruned'}"


def load_run(run: RunDirectory) -> tuple[Program, Program, PruneReport]:
    """What the pruning stage left: dense program, pruned program, report.

    Raises:
        OutputError: The directory is not a run, or a file in it is damaged.
    """
    missing = [p.name for p in (run.program, run.weights, run.prune) if not p.is_file()]
    if missing:
        raise OutputError(
            "the directory holds no pruning run",
            seen=f"{run.path}: no {', '.join(missing)}",
            fix="run snowsdeploy prune or prune-export with --out on it first",
        )
    try:
        report = PruneReport.model_validate_json(run.prune.read_text(encoding="utf-8"))
        weights = load_file(run.weights)
    except (ValueError, OSError, SafetensorError) as error:
        raise OutputError("the pruning run is damaged", seen=f"{run.path}: {error}", fix="run it again") from error
    loaded = load_model(ModelRequest(str(run.program)))
    source = saved_source(run.program)
    if loaded.preprocessing is None or source is None or isinstance(loaded.model, nn.Module):
        raise OutputError("the pruning run does not say how it was made", seen=run.program, fix="run it again")
    program = adopt(loaded.model, loaded.preprocessing, source)
    return program, program.with_weights(weights), report


def load_export(run: RunDirectory) -> ExportReport:
    """What the export stage left; its files must still be what was exported.

    Raises:
        OutputError: Not exported, damaged, or changed since.
    """
    try:
        artifacts = ExportReport.model_validate_json(run.export.read_text(encoding="utf-8"))
        for artifact, path in ((artifacts.dense, run.dense), (artifacts.sparse, run.sparse)):
            with path.open("rb") as stream:
                if file_digest(stream, "sha256").hexdigest() != artifact.sha256:
                    raise OutputError("an exported file has changed since its export", seen=path, fix="export again")
    except (OSError, ValueError) as error:
        raise OutputError(
            "the directory holds no export", seen=f"{run.path}: {error}", fix="run snowsdeploy export on it first"
        ) from error
    dense = artifacts.dense.model_copy(update={"path": run.dense})
    return ExportReport(dense=dense, sparse=artifacts.sparse.model_copy(update={"path": run.sparse}))


def export_programs(
    program: Program, pruned: Program, report: PruneReport, run: RunDirectory, exporter: Exporter
) -> ExportReport:
    """Write `dense.onnx` and `model.onnx`; both or none stay.

    Raises:
        ExportError: As the exporter says.
        LayoutError: A pruned layer does not hold the pattern in the file.
    """
    expected = [d.name for d in report.pruned]
    try:
        dense = exporter.export(program, run.dense, "dense", _provenance(program, report, "dense"))
        sparse = exporter.export(pruned, run.sparse, "sparse", _provenance(program, report, "sparse"))
        check_onnx(run.sparse, Pattern.parse(report.pattern), expected)
    except BaseException:
        run.dense.unlink(missing_ok=True)
        run.sparse.unlink(missing_ok=True)
        raise
    artifacts = ExportReport(dense=dense, sparse=sparse)
    write_text_atomic(run.export, artifacts.model_dump_json(indent=2) + "\n")
    return artifacts


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
        "seed": str(report.seed),
        "calibration": report.calibration.fingerprint,
        "mean": ",".join(map(str, program.preprocessing.mean)),
        "std": ",".join(map(str, program.preprocessing.std)),
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
    }
    return {f"snowsdeploy.{key}": value for key, value in facts.items()}


def validate_programs(
    pruned: Program,
    prune_report: PruneReport,
    artifacts: ExportReport,
    run: RunDirectory,
    settings: ValidateSettings,
    *,
    policy: GatePolicy,
    observer: Observer,
    command: str,
    seconds: dict[str, float],
) -> Report:
    """Measure everything on the exported files, judge it, and write the report."""
    started = time.perf_counter()
    dense, sparse = artifacts.dense, artifacts.sparse
    pattern = Pattern.parse(prune_report.pattern)
    evidence = check_onnx(sparse.path, pattern, [d.name for d in prune_report.pruned])
    sessions = tuple(OrtSession.open(a.path, settings.provider) for a in (dense, sparse))
    images = open_images(settings.eval_data, pruned.preprocessing, option="--eval-data") if settings.eval_data else None
    warnings = _warnings(prune_report, images)
    for text in warnings:
        observer.warn(text)
    observer.stage("validate", f"parity, accuracy and latency on {settings.provider}")
    parity = measure_parity(pruned.run, sessions[1], _parity_batches(pruned, images))
    accuracy = None
    if images is not None:
        step = observer.advance
        accuracy = measure_accuracy(sessions[0], sessions[1], images, settings.eval_batch, step)
    latency = measure_latency(
        sessions[0],
        sessions[1],
        lambda batch: _random_images(pruned, batch).numpy(),
        settings.latency_batch,
        runs=settings.latency_runs,
    )
    report = Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        environment=describe_environment(),
        source=pruned.source,
        preprocessing=pruned.preprocessing,
        prune=prune_report,
        dense=dense,
        sparse=sparse,
        sparsity=evidence,
        parity=parity,
        accuracy=accuracy,
        latency=latency,
        warnings=warnings,
        seconds={**seconds, "validate": time.perf_counter() - started},
        peak_memory_bytes=peak_memory_bytes(),
    )
    return write_verdict(report, policy, run)


def write_verdict(report: Report, policy: GatePolicy, run: RunDirectory) -> Report:
    """Judge a report and write `report.json` and `summary.md`."""
    report = report.model_copy(update={"verdict": judge(report, policy)})
    write_report(report, run.report)
    write_text_atomic(run.summary, render_markdown(report))
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
