"""The jobs: strings and a run directory at the two ends, the stages on values between them.

Only this module reads and writes a run directory, which holds what each stage left: `config.toml` (what repeats the
run), `program.pt2` (dense), `pruned.safetensors`, `masks.safetensors` and `prune.json`, `dense.onnx` and `model.onnx`
(for other precisions `dense.fp16.onnx` and the like; `serving.onnx` with preprocessing or output ends), a folder for
each other format, `export.json`, `report.json`, `summary.md` and `report.html`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from snowsdeploy.allocate.keep_dense import keep_dense
from snowsdeploy.data.samples import Samples
from snowsdeploy.device import choose_device
from snowsdeploy.diagnose.accuracy import debug_accuracy
from snowsdeploy.diagnose.parity import debug_parity
from snowsdeploy.distributed import Launch, from_first, rank, wait_for_all
from snowsdeploy.engines.by_precision import read_accounts
from snowsdeploy.errors import DataError, OutputError
from snowsdeploy.files import write_text_atomic
from snowsdeploy.gate.judge import judge
from snowsdeploy.measure.compilation import require_compiler
from snowsdeploy.models.program import saved_source
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.models.tensor_files import save_tensors
from snowsdeploy.models.trace import adopt
from snowsdeploy.progress import NullObserver, Observer
from snowsdeploy.pruning.plan import make_selection
from snowsdeploy.pruning.prepared import prepare
from snowsdeploy.report.html import render_html
from snowsdeploy.report.markdown import render_markdown
from snowsdeploy.report.store import read_report, write_report
from snowsdeploy.runtime.environment import installed_versions
from snowsdeploy.runtime.probe import require_provider
from snowsdeploy.settings.base import Settings
from snowsdeploy.settings.export import ExportSettings
from snowsdeploy.settings.jobs import MainJob, PlanJob, PruneJob, ValidateJob
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.presets import resolve
from snowsdeploy.settings.read import SettingsFile, load_policy, read_file, read_settings
from snowsdeploy.settings.runtime import RuntimeSettings
from snowsdeploy.settings.write import config_toml, effective_values
from snowsdeploy.stages.export import Exporter, export, needs_samples, require_ends
from snowsdeploy.stages.inputs import Inputs, load_inputs, open_calibration, open_evaluation
from snowsdeploy.stages.packages import Writers, require_formats
from snowsdeploy.stages.plan import plan
from snowsdeploy.stages.prune import Pruned, prune, prune_prepared
from snowsdeploy.stages.run_directory import RunDirectory
from snowsdeploy.stages.validate import SECTIONS, Section, known_variants, validate
from snowsdeploy.values import (
    AccuracyCost,
    Divergence,
    ExportReport,
    FilePair,
    OnnxArtifact,
    Precision,
    PruneReport,
    Report,
    RunPlan,
    StageCommand,
)

S = TypeVar("S", bound=Settings)
Load = Callable[[PlanJob, str | None], Inputs]  # settings and --eval-data -> what the job works on

_VERSIONS = ("snowsdeploy", "torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime")
_ENGINE: tuple[Section, ...] = ("layout", "engine")
_RUN: tuple[Section, ...] = ("layout", "engine", "parity", "accuracy", "latency")
# What an option of the validation stage renews, where it is given beside a report of the same files.
_RENEWS: dict[str, tuple[Section, ...]] = {
    "engine_log": _ENGINE,
    "engine_layers": _ENGINE,
    "eval_data": ("parity", "accuracy"),
    "eval_batch": ("accuracy",),
    "compile_for": ("compilation",),
    "latency_batch": ("latency",),
    "latency_runs": ("latency",),
    "provider": _RUN,
    "provider_option": _RUN,
    "allow_fallback": _RUN,
    "engine_cache": _RUN,
    "policy": (),
}


def run_main_job(
    settings: MainJob,
    exporter: Exporter,
    *,
    writers: Writers | None = None,
    policy: GatePolicy | None = None,
    load: Load = load_inputs,
    observer: Observer | None = None,
    command: str = "",
    launch: Launch | None = None,
) -> Report | None:
    """Checkpoint -> pruned, verified ONNX model, its evidence and verdict.

    Of several processes (torchrun) all solve, and the first does the rest; the others return None.

    Args:
        settings: All of them.
        exporter: Writes the ONNX files.
        writers: Of the formats beside ONNX.
        policy: Limits of the gates; those of `settings.policy`, or the defaults, when not given.
        load: Makes the program and the samples.
        observer: Told about progress.
        command: Recorded in the report, for repeating the run.
        launch: By torchrun; a run that it started again goes on where it ended.

    Raises:
        SnowsDeployError: Any of its subclasses; see `snowsdeploy.errors`.
    """
    observer, settings = observer or NullObserver(), resolve(settings)
    policy = policy or _policy(settings.policy)
    run = RunDirectory(settings.out)
    require_formats(settings.format, writers or {}, run)
    if from_first(run.taken_before(launch) and run.report.is_file()):
        # a gate failed, and torchrun started the processes again for the exit code's sake
        return None if rank() else read_report(run.report)
    require_provider(settings)  # before minutes are spent
    if settings.compile_for:
        require_compiler()
    done = _command("prune-export", command)
    pruned, inputs = _prune(settings, run, load, policy=policy, observer=observer, done=done, launch=launch)
    if rank():
        return None
    started = time.perf_counter()
    samples = pruned.samples or (open_calibration(pruned.report, pruned.dense) if needs_samples(settings) else None)
    files = export(pruned, settings, exporter=exporter, place=run, samples=samples, writers=writers, observer=observer)
    _write(run.export, files)
    seconds = {"prune": pruned.report.seconds, "export": time.perf_counter() - started}
    evaluation = inputs.evaluation if inputs else open_evaluation(settings.eval_data, pruned.dense)
    report = validate(pruned, files, evaluation, settings, observer=observer)
    seconds["validate"] = report.seconds["validate"]
    report = report.model_copy(update={"seconds": seconds, "commands": pruned.report.commands})
    judged = _write_verdict(report, policy, run)
    if judged.verdict and judged.verdict.verdict == "pass":
        run.launch.unlink(missing_ok=True)
    return judged


def run_prune(
    settings: PruneJob,
    *,
    load: Load = load_inputs,
    observer: Observer | None = None,
    command: str = "",
    launch: Launch | None = None,
) -> Pruned:
    """The pruning stage alone; leaves `program.pt2`, `pruned.safetensors`, `masks.safetensors` and `prune.json`.

    Args:
        settings: Of the stage.
        load: As in `run_main_job`.
        observer: Told about progress.
        command: Recorded, for repeating the run.
        launch: As in `run_main_job`.

    Raises:
        SnowsDeployError: As `run_main_job`.
    """
    run, settings = RunDirectory(settings.out), resolve(settings)
    done = _command("prune", command)
    pruned, _ = _prune(settings, run, load, policy=None, observer=observer or NullObserver(), done=done, launch=launch)
    if rank() == 0:
        run.launch.unlink(missing_ok=True)
    return pruned


def run_prune_in_memory(settings: PlanJob, *, load: Load, observer: Observer | None = None) -> Pruned:
    """The pruning stage alone, without a run directory.

    Raises:
        SnowsDeployError: As `run_main_job`.
    """
    observer, settings = observer or NullObserver(), resolve(settings)
    inputs = _load(settings, load, None, observer)
    return prune(inputs.program, inputs.calibration, settings, settings, observer=observer)


def save_pruned(pruned: Pruned, folder: Path) -> None:
    """Write what the pruning stage leaves into a new or empty run directory.

    Raises:
        OutputError: It is not empty, or cannot be written.
    """
    run = RunDirectory(folder)
    run.prepare(force=False, resume=False)
    _write_pruned(run, pruned)


def run_plan(settings: PlanJob, *, load: Load = load_inputs, observer: Observer | None = None) -> RunPlan:
    """Predict time, memory and disk of the pruning stage.

    Raises:
        SnowsDeployError: As `run_main_job`.
    """
    observer, settings = observer or NullObserver(), resolve(settings)
    started = time.perf_counter()
    inputs = _load(settings, load, None, observer)
    took = time.perf_counter() - started
    return plan(
        inputs.program,
        inputs.calibration,
        settings,
        settings,
        model=settings.model,
        load_seconds=took,
        observer=observer,
    )


def run_export(
    folder: Path,
    given: Mapping[str, Any],
    exporter: Callable[[ExportSettings], Exporter],
    *,
    writers: Writers | None = None,
    data: str | None = None,
    samples: Samples | None = None,
    file: SettingsFile | None = None,
    observer: Observer | None = None,
    command: str = "",
) -> ExportReport:
    """The export stage alone, on what `prune` left.

    Args:
        folder: A run directory.
        given: Export settings by name.
        exporter: Makes what writes the ONNX files.
        writers: Of the formats beside ONNX.
        data: Where the calibration images are now, if not where they were.
        samples: The calibration images themselves.
        file: More settings, of a TOML file; below `given`.
        observer: Told about progress.
        command: Recorded.

    Raises:
        SnowsDeployError: As `run_main_job`.
    """
    run = RunDirectory(folder)
    pruned, settings = load_pruned(run), read_settings(ExportSettings, given, file)
    if samples is None and needs_samples(settings):
        samples = open_calibration(pruned.report, pruned.dense, data)
    earlier = _earlier_commands(run)
    files = export(
        pruned,
        settings,
        exporter=exporter(settings),
        place=run,
        samples=samples,
        writers=writers,
        observer=observer,
    )
    files = files.model_copy(update={"commands": (*earlier, *_command("export", command))})
    _write(run.export, files)
    _write_config(run, settings, None)
    return files


def run_validate(
    folder: Path,
    given: Mapping[str, Any],
    *,
    file: SettingsFile | None = None,
    policy: GatePolicy | None = None,
    evaluation: Samples | None = None,
    observer: Observer | None = None,
    command: str = "",
) -> Report:
    """The validation stage alone, on what `prune` and `export` left.

    Evaluation data, policy and everything else that is not given are those of the run. Where a report of the same files
    is there, only what the given options are about is measured again; without any of them everything is that can be.

    Args:
        folder: A run directory.
        given: Settings by name, over those that the run was made with.
        file: More settings, of a TOML file; below `given`.
        policy: Limits, over those of the files.
        evaluation: The evaluation images themselves, in place of `eval_data`.
        observer: Told about progress, what is new and what was kept.
        command: Added to those of the report.

    Raises:
        SnowsDeployError: As `run_main_job`.
    """
    run, observer = RunDirectory(folder), observer or NullObserver()
    config, more = _config_of(run), file or SettingsFile()
    settings = read_settings(ValidateJob, given, _laid_over(config, more))
    asked = {k for k, v in given.items() if v is not None} | (set(more.values) & set(_RENEWS))
    asked |= set() if evaluation is None else {"eval_data"}
    limits = policy or _policy(settings.policy, given, more, config)
    pruned, files = load_pruned(run), load_export(run)
    before = _report_before(run, observer)
    renew = {section for name in asked for section in _RENEWS[name]} if asked else set(SECTIONS)
    require_provider(settings)
    engines = read_accounts(settings.engine_log, settings.engine_layers, files)
    unknown = len(known_variants(before, files)) < len(files.judged)
    if evaluation is None and (unknown or renew & {"accuracy", "parity"}):
        evaluation = open_evaluation(settings.eval_data, pruned.dense)
    report = validate(
        pruned, files, evaluation, settings, engines=engines, before=before, renew=renew, observer=observer
    )
    renewed = tuple(name for name in SECTIONS if name in renew) if before and not unknown else ()
    earlier = before.commands if before else pruned.report.commands
    history = dict.fromkeys((*earlier, *pruned.report.commands, *files.commands))
    commands = (*history, *_command("validate", command, renewed))
    judged = _write_verdict(report.model_copy(update={"commands": commands}), limits, run)
    _write_config(run, settings, limits)
    return judged


def run_debug_parity(
    folder: Path,
    precision: Precision,
    runtime: RuntimeSettings,
    *,
    images: int,
    observer: Observer,
    data: str | None = None,
    tolerance: float | None = None,
) -> Divergence:
    """Where the values of a run's sparse file leave PyTorch's; nothing in the run is changed.

    Args:
        folder: A run directory; a file that was changed since its export is compared too.
        precision: Which file.
        runtime: Where it runs.
        images: How many calibration images; random ones where their source is gone.
        observer: Told about progress.
        data: Where the calibration images are now.
        tolerance: Largest relative error that is no divergence; None for the precision's parity limit.

    Raises:
        OutputError: The directory has no such file.
        ProviderError: The file does not run there at all.
    """
    run = RunDirectory(folder)
    pruned, path = load_pruned(run), run.onnx("sparse", precision)
    batch, origin = _debug_images(pruned, images, data)
    return debug_parity(
        pruned.sparse,
        path,
        run.onnx("sparse"),
        batch,
        runtime,
        precision=precision,
        observer=observer,
        images_from=origin,
        changed=path.is_file() and _is_changed(run, path, precision),
        tolerance=tolerance,
    )


def run_debug_accuracy(
    folder: Path, items: int | None, policy: GatePolicy, observer: Observer, data: str | None = None
) -> AccuracyCost:
    """Which layers of a run cost accuracy; nothing in the run is changed.

    Args:
        folder: A run directory.
        items: How many calibration images; None for all.
        policy: Its accuracy rules are what the suggestion must pass, on the same images.
        observer: Told about progress.
        data: Where the calibration images are now.

    Raises:
        OutputError: The directory holds no pruning run, or nothing in it is pruned.
        DataError: The calibration images are gone or have changed.
    """
    pruned = load_pruned(RunDirectory(folder))
    samples = open_calibration(pruned.report, pruned.dense, data)
    chosen = samples.select(samples.indices[:items])
    return debug_accuracy(pruned.dense, pruned.tensors, pruned.report, chosen, policy=policy, observer=observer)


def version_warnings(file: SettingsFile) -> tuple[str, ...]:
    """What a run's config.toml was made with that is another version here."""
    here = installed_versions(tuple(file.versions))
    rows = [f"{name} {was}, here {here.get(name, 'not installed')}" for name, was in file.versions.items()]
    differ = [row for row, (name, was) in zip(rows, file.versions.items(), strict=True) if here.get(name) != was]
    return (f"--config was written with {'; '.join(differ)}: weights may differ",) if differ else ()


def _load(settings: PlanJob, load: Load, eval_data: str | None, observer: Observer) -> Inputs:
    make_selection(settings)  # says what contradicts itself, before anything is read
    choose_device(settings.device)
    observer.stage("load", settings.model)
    torch.manual_seed(settings.seed)
    return load(settings, eval_data)


def _prune(
    settings: PruneJob,
    run: RunDirectory,
    load: Load,
    *,
    policy: GatePolicy | None,
    observer: Observer,
    done: tuple[StageCommand, ...],
    launch: Launch | None,
) -> tuple[Pruned, Inputs | None]:
    """Load, prune, and leave the result in the run directory; what is judged on is loaded with it."""
    started = time.perf_counter()
    first = rank() == 0
    if from_first(run.taken_before(launch)):
        if from_first(run.prune.is_file()):  # what ended the processes came after the solve
            return load_pruned(run), None
        settings = settings.model_copy(update={"resume": True})
    if first:
        run.require_free(force=settings.force, resume=settings.resume)
    main = settings if isinstance(settings, MainJob) else None
    inputs = _load(settings, load, main.eval_data if main else None, observer)
    if main:
        require_ends(main, inputs.program)
    prepared = prepare(inputs.program, inputs.calibration, settings, settings)
    if first:
        run.prepare(force=settings.force, resume=settings.resume)
        if launch:
            write_text_atomic(run.launch, f"{launch.job}\n")
    wait_for_all()
    space = run.workspace(resume=settings.resume)
    pruned = prune_prepared(prepared, settings, settings, space=space, observer=observer)
    if main and main.keep_dense_until_gate and inputs.evaluation is not None:
        pruned = _kept_dense(pruned, inputs.evaluation, policy or _policy(main.policy), observer)
    seconds = time.perf_counter() - started
    pruned = replace(pruned, report=pruned.report.model_copy(update={"seconds": seconds, "commands": done}))
    if first:
        _write_pruned(run, pruned)
        _write_config(run, settings, policy)
        space.clear()
    wait_for_all()
    return pruned, inputs


def _kept_dense(pruned: Pruned, evaluation: Samples, policy: GatePolicy, observer: Observer) -> Pruned:
    """With the fewest layers dense that let the accuracy rules pass."""
    assert pruned.samples is not None
    assert pruned.report.memory is not None
    batches = list(pruned.samples.batches(pruned.report.memory.batch_size))
    tensors, report = keep_dense(
        pruned.dense,
        pruned.tensors,
        pruned.report,
        batches=batches,
        evaluation=evaluation,
        policy=policy,
        observer=observer,
    )
    masks = {name: mask for name, mask in pruned.masks.items() if name in tensors}
    return replace(pruned, tensors=tensors, masks=masks, report=report)


def load_pruned(run: RunDirectory) -> Pruned:
    """What the pruning stage left.

    Raises:
        OutputError: The directory is not a run, or a file in it is damaged.
    """
    missing = [p.name for p in (run.program, run.weights, run.masks, run.prune) if not p.is_file()]
    if missing:
        raise OutputError(
            "the directory holds no pruning run",
            seen=f"{run.path}: no {', '.join(missing)}",
            fix="run snowsdeploy prune or prune-export with --out on it first",
        )
    try:
        report = PruneReport.model_validate_json(run.prune.read_text(encoding="utf-8"))
        tensors, masks = load_file(run.weights), load_file(run.masks)
    except (ValueError, OSError, SafetensorError) as error:
        raise OutputError("the pruning run is damaged", seen=f"{run.path}: {error}", fix="run it again") from error
    loaded = load_model(ModelRequest(str(run.program)))
    source = saved_source(run.program)
    if loaded.preprocessing is None or source is None or isinstance(loaded.model, nn.Module):
        raise OutputError("the pruning run does not say how it was made", seen=run.program, fix="run it again")
    return Pruned(adopt(loaded.model, loaded.preprocessing, source), tensors, masks, report)


def load_export(run: RunDirectory) -> ExportReport:
    """What the export stage left; its files must still be what was exported.

    Raises:
        OutputError: Not exported, damaged, or changed since.
    """
    try:
        files = ExportReport.from_json_in(run.export.read_text(encoding="utf-8"), run.path)
        for file in (*(f for pair in files.pairs for f in (pair.dense, pair.sparse)), *files.serving):
            _require_unchanged(file)
    except (OSError, ValueError) as error:
        raise OutputError(
            "the directory holds no export", seen=f"{run.path}: {error}", fix="run snowsdeploy export on it first"
        ) from error
    return files


def _require_unchanged(artifact: OnnxArtifact) -> None:
    if _digest(artifact.path) != artifact.sha256:
        raise OutputError("an exported file has changed since its export", seen=artifact.path, fix="export again")


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _is_changed(run: RunDirectory, path: Path, precision: Precision) -> bool:
    try:
        pairs: tuple[FilePair, ...] = ExportReport.from_json_in(run.export.read_text(encoding="utf-8"), run.path).pairs
    except (OSError, ValueError):
        return True
    return _digest(path) not in [pair.sparse.sha256 for pair in pairs if pair.precision == precision]


def _debug_images(pruned: Pruned, count: int, data: str | None) -> tuple[Tensor, str]:
    """Calibration images, or random ones with the reason."""
    try:
        batch = open_calibration(pruned.report, pruned.dense, data).rows(
            0, min(count, len(pruned.report.calibration_items))
        )
    except DataError as error:
        shape = (count, *pruned.dense.preprocessing.input_size)
        random = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return random, f"{count} random images, since those of the calibration are not there ({error.what})"
    return batch, f"{len(batch)} calibration images"


def _policy(path: Path | None, given: Mapping[str, Any] | None = None, *files: SettingsFile) -> GatePolicy:
    """The limits: of the option, else of the first file that has some, else the defaults."""
    if path is not None and (given is None or given.get("policy") is not None):
        return load_policy(path)
    for file in files:
        if file.policy is not None:
            return file.policy
        if "policy" in file.values:
            return load_policy(Path(file.values["policy"]))
    return GatePolicy()


def _config_of(run: RunDirectory) -> SettingsFile:
    """What a run was made with; nothing where it does not say."""
    return read_file(run.config, "the run's settings") if run.config.is_file() else SettingsFile()


def _laid_over(below: SettingsFile, above: SettingsFile | None) -> SettingsFile:
    return below if above is None else SettingsFile({**below.values, **above.values}, above.policy or below.policy)


def _write_config(run: RunDirectory, settings: Settings, policy: GatePolicy | None) -> None:
    """Lay the effective settings of a stage over what the run's file holds."""
    before = _config_of(run)
    kept = {name: value for name, value in before.values.items() if name not in type(settings).model_fields}
    values = {**kept, **effective_values(settings)}
    limits = policy or before.policy or GatePolicy()
    write_text_atomic(run.config, config_toml(values, limits, before.versions or installed_versions(_VERSIONS)))


def _write_pruned(run: RunDirectory, pruned: Pruned) -> None:
    pruned.dense.save(run.program)
    save_tensors(run.weights, pruned.tensors)
    save_tensors(run.masks, pruned.masks)
    _write(run.prune, pruned.report)


def _write(path: Path, value: PruneReport | ExportReport) -> None:
    write_text_atomic(path, value.json_in(path.parent))


def _write_verdict(report: Report, policy: GatePolicy, run: RunDirectory) -> Report:
    """Judge a report and write `report.json`, `summary.md` and `report.html`."""
    report = report.model_copy(update={"verdict": judge(report, policy)})
    write_report(report, run.report)
    write_text_atomic(run.summary, render_markdown(report))
    write_text_atomic(run.page, render_html(report))
    return report


def _command(stage: str, text: str, renewed: tuple[str, ...] = ()) -> tuple[StageCommand, ...]:
    """A command with the time; none where there is none, as in a call from Python."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return (StageCommand(stage=stage, command=text, created=now, renewed=renewed),) if text else ()


def _earlier_commands(run: RunDirectory) -> tuple[StageCommand, ...]:
    """By which the export stage was run before."""
    try:
        return ExportReport.from_json_in(run.export.read_text(encoding="utf-8"), run.path).commands
    except (OSError, ValueError):
        return ()


def _report_before(run: RunDirectory, observer: Observer) -> Report | None:
    """The run's report, whose sections can be kept."""
    if not run.report.is_file():
        return None
    try:
        return read_report(run.report)
    except OutputError as error:
        observer.warn(f"the report of an earlier validation is not used: {error.seen or error.what}")
        return None
