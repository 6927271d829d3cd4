"""The jobs that begin with a model: strings and a run directory at the two ends, the stages on values between them.

Only this module, `later` and `debug` read and write a run directory, by `run_files`. It holds what each stage left:
`config.toml` (what repeats the run), `program.pt2` (dense; with `original.onnx` where it was imported from one),
`pruned.safetensors`, `masks.safetensors` and `prune.json`, `dense.onnx` and `model.onnx` (for other precisions
`dense.fp16.onnx` and the like; `serving.onnx` with preprocessing or output ends), a folder for each other format,
`export.json`, `report.json`, `summary.md` and `report.html`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from snowsdeploy.allocate.keep_dense import keep_dense
from snowsdeploy.device import choose_device
from snowsdeploy.distributed import Launch, from_first, rank, wait_for_all
from snowsdeploy.files import write_text_atomic
from snowsdeploy.measure.compilation import require_compiler
from snowsdeploy.progress import NullObserver, Observer
from snowsdeploy.pruning.plan import make_selection
from snowsdeploy.pruning.prepared import fitted, prepare
from snowsdeploy.report.store import read_report
from snowsdeploy.runtime.environment import installed_versions
from snowsdeploy.runtime.probe import require_provider
from snowsdeploy.settings.base import Settings
from snowsdeploy.settings.jobs import MainJob, PlanJob, PruneJob
from snowsdeploy.settings.policy import GatePolicy, with_goals
from snowsdeploy.settings.presets import resolve
from snowsdeploy.settings.read import SettingsFile
from snowsdeploy.settings.validate import EvaluationSettings
from snowsdeploy.settings.write import effective
from snowsdeploy.stages.export import Exporter, export, needs_samples, require_ends
from snowsdeploy.stages.imported import require_imported
from snowsdeploy.stages.inputs import Inputs, load_inputs
from snowsdeploy.stages.packages import Writers, require_formats
from snowsdeploy.stages.plan import plan
from snowsdeploy.stages.prune import Pruned, prune, prune_prepared
from snowsdeploy.stages.rehearse import rehearse
from snowsdeploy.stages.run_directory import RunDirectory
from snowsdeploy.stages.run_files import (
    load_pruned,
    policy_of,
    require_same,
    stage_command,
    write_config,
    write_pruned,
    write_value,
    write_verdict,
)
from snowsdeploy.stages.samples import open_calibration, open_evaluation
from snowsdeploy.stages.task import judge_of, task_remarks
from snowsdeploy.stages.validate import (
    require_sizes,
    validate,
)
from snowsdeploy.values import Report, RunPlan, StageCommand

S = TypeVar("S", bound=Settings)
Load = Callable[[PlanJob, str | None], Inputs]  # settings and --eval-data -> what the job works on


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
    policy = with_goals(policy or policy_of(settings.policy), settings.metric_goal)
    run = RunDirectory(settings.out)
    require_formats(settings.format, writers or {}, run)
    if from_first(run.taken_before(launch) and run.report.is_file()):
        # a gate failed, and torchrun started the processes again for the exit code's sake
        return None if rank() else read_report(run.report)
    require_provider(settings)  # before minutes are spent
    if settings.compile_for:
        require_compiler()
    done = stage_command("prune-export", command)
    with ExitStack() as held:
        pruned, inputs = _prune(
            settings,
            run,
            load,
            policy=policy,
            observer=observer,
            done=done,
            launch=launch,
            exporter=exporter,
            held=held,
        )
        if rank():
            return None
        return _exported_and_judged(
            pruned, inputs, settings, run, exporter=exporter, writers=writers, policy=policy, observer=observer
        )


def _exported_and_judged(
    pruned: Pruned,
    inputs: Inputs | None,
    settings: MainJob,
    run: RunDirectory,
    *,
    exporter: Exporter,
    writers: Writers | None,
    policy: GatePolicy,
    observer: Observer,
) -> Report:
    """What follows the pruning."""
    started = time.perf_counter()
    samples = pruned.samples or (open_calibration(pruned.report, pruned.dense) if needs_samples(settings) else None)
    files = export(pruned, settings, exporter=exporter, place=run, samples=samples, writers=writers, observer=observer)
    write_value(run.export, files)
    seconds = {"prune": pruned.report.seconds, "export": time.perf_counter() - started}
    evaluation = inputs.evaluation if inputs else open_evaluation(settings.eval_data, pruned.dense)
    judge = inputs.judge if inputs else None
    report = validate(pruned, files, evaluation, settings, judge=judge, observer=observer)
    seconds["validate"] = report.seconds["validate"]
    report = report.model_copy(update={"seconds": seconds, "commands": pruned.report.commands})
    judged = write_verdict(report, policy, run)
    if judged.verdict and judged.verdict.verdict == "pass":
        run.launch.unlink(missing_ok=True)
    return judged


def run_prune(
    settings: PruneJob,
    *,
    policy: GatePolicy | None = None,
    load: Load = load_inputs,
    observer: Observer | None = None,
    command: str = "",
    launch: Launch | None = None,
) -> Pruned:
    """The pruning stage alone; leaves `program.pt2`, `pruned.safetensors`, `masks.safetensors` and `prune.json`.

    Args:
        settings: Of the stage.
        policy: Limits by which a later stage judges, for `config.toml`.
        load: As in `run_main_job`.
        observer: Told about progress.
        command: Recorded, for repeating the run.
        launch: As in `run_main_job`.

    Raises:
        SnowsDeployError: As `run_main_job`.
    """
    run, settings = RunDirectory(settings.out), resolve(settings)
    observer, done = observer or NullObserver(), stage_command("prune", command)
    with ExitStack() as held:
        pruned, _ = _prune(settings, run, load, policy=policy, observer=observer, done=done, launch=launch, held=held)
        if rank() == 0:
            run.launch.unlink(missing_ok=True)
    return pruned


def run_prune_in_memory(settings: PlanJob, *, load: Load, observer: Observer | None = None) -> Pruned:
    """The pruning stage alone, without a run directory.

    Raises:
        SnowsDeployError: As `run_main_job`.
    """
    observer, settings = observer or NullObserver(), resolve(settings)
    inputs = load_all(settings, load, None, observer)
    return prune(inputs.program, inputs.calibration, settings, settings, observer=observer)


def save_pruned(pruned: Pruned, folder: Path) -> None:
    """Write what the pruning stage leaves into a new or empty run directory.

    Raises:
        OutputError: It is not empty, or cannot be written.
    """
    run = RunDirectory(folder)
    with run.taken(force=False, resume=False):
        write_pruned(run, pruned)


def run_plan(settings: PlanJob, *, load: Load = load_inputs, observer: Observer | None = None) -> RunPlan:
    """Predict time, memory and disk of the pruning stage.

    Raises:
        SnowsDeployError: As `run_main_job`.
    """
    observer, settings = observer or NullObserver(), resolve(settings)
    started = time.perf_counter()
    inputs = load_all(settings, load, None, observer)
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


def version_warnings(file: SettingsFile) -> tuple[str, ...]:
    """What a run's config.toml was made with that is another version here."""
    here = installed_versions(tuple(file.versions))
    rows = [f"{name} {was}, here {here.get(name, 'not installed')}" for name, was in file.versions.items()]
    differ = [row for row, (name, was) in zip(rows, file.versions.items(), strict=True) if here.get(name) != was]
    return (f"--config was written with {'; '.join(differ)}: weights may differ",) if differ else ()


def load_all(settings: PlanJob, load: Load, eval_data: str | None, observer: Observer) -> Inputs:
    """Model and images, after what settings can say of themselves.

    Args:
        settings: Resolved.
        load: Loads.
        eval_data: As typed.
        observer: Told.
    """
    make_selection(settings)  # says what contradicts itself, before anything is read
    choose_device(settings.device)
    observer.stage("load", settings.model)
    torch.manual_seed(settings.seed)
    inputs = load(settings, eval_data)
    if inputs.program.source.weights:
        observer.message(f"weights: {inputs.program.source.weights}")
    for text in inputs.program.source.remarks:
        observer.message(text)
    if inputs.program.file is not None:
        error = require_imported(inputs.program, inputs.calibration)
        observer.message(f"imported: the same as ONNX Runtime's outputs to a relative error of {error:.1e}")
    for option, samples in (("--data", inputs.calibration), ("--eval-data", inputs.evaluation)):
        if samples is not None and samples.left_out:
            size = samples.fixed
            observer.warn(f"{samples.left_out} items of {option} are left out: the model takes {size} at once")
    if isinstance(settings, EvaluationSettings):
        judge = judge_of(settings, inputs.program, inputs.evaluation)
        for text in task_remarks(judge, inputs.evaluation, inputs.program):
            observer.warn(text)
        return replace(inputs, judge=judge)
    return inputs


def _prune(
    settings: PruneJob,
    run: RunDirectory,
    load: Load,
    *,
    policy: GatePolicy | None,
    observer: Observer,
    done: tuple[StageCommand, ...],
    launch: Launch | None,
    held: ExitStack,
    exporter: Exporter | None = None,
) -> tuple[Pruned, Inputs | None]:
    """Load, prune, and leave the result in the run directory, which is held until `held` ends."""
    started, written = time.perf_counter(), effective(settings)
    first = rank() == 0
    if from_first(run.taken_before(launch)):
        if from_first(run.prune.is_file()):  # what ended the processes came after the solve
            if first:
                held.enter_context(run.locked())
            return load_pruned(run), None
        settings = settings.model_copy(update={"resume": True})
    if first:
        run.require_free(force=settings.force, resume=settings.resume)
        if settings.resume and not settings.force:
            require_same(run, written)
    main = settings if isinstance(settings, MainJob) else None
    inputs = load_all(settings, load, main.eval_data if main else None, observer)
    if main:
        require_ends(main, inputs.program)
        require_sizes(main, inputs.program)
    settings = fitted(settings, inputs.program)
    prepared = prepare(inputs.program, inputs.calibration, settings, settings)
    if exporter and first and not settings.resume:
        layers = [decision.name for decision in prepared.decisions if decision.prunable]
        limits = policy or GatePolicy()
        rehearse(inputs.program, layers, prepared.calibration, exporter, policy=limits, observer=observer)
    if first:
        held.enter_context(run.taken(force=settings.force, resume=settings.resume))
        if launch:
            write_text_atomic(run.launch, f"{launch.job}\n")
    wait_for_all()
    space = run.workspace(resume=settings.resume)
    pruned = prune_prepared(prepared, settings, settings, space=space, observer=observer)
    if main and main.keep_dense_until_gate:
        pruned = _kept_dense(pruned, inputs, policy or policy_of(main.policy), observer)
    seconds = time.perf_counter() - started
    pruned = replace(pruned, report=pruned.report.model_copy(update={"seconds": seconds, "commands": done}))
    if first:
        pruned = write_pruned(run, pruned)
        write_config(run, written, policy)
        space.clear()
    wait_for_all()
    return pruned, inputs


def _kept_dense(pruned: Pruned, inputs: Inputs, policy: GatePolicy, observer: Observer) -> Pruned:
    """With the fewest layers dense that let the accuracy rules pass."""
    assert pruned.samples is not None
    assert inputs.evaluation is not None
    assert inputs.judge is not None
    assert pruned.report.memory is not None
    batches = list(pruned.samples.batches(pruned.report.memory.batch_size))
    tensors, report = keep_dense(
        pruned.dense,
        pruned.tensors,
        pruned.report,
        batches=batches,
        evaluation=inputs.evaluation,
        judge=inputs.judge,
        policy=policy,
        observer=observer,
    )
    masks = {name: mask for name, mask in pruned.masks.items() if name in tensors}
    return replace(pruned, tensors=tensors, masks=masks, report=report)
