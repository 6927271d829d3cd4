"""The jobs that begin with a run directory: export and validate what was pruned before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from snowsdeploy.data.samples import Samples
from snowsdeploy.engines.by_precision import read_accounts
from snowsdeploy.errors import DataError
from snowsdeploy.measure.compilation import require_compiler
from snowsdeploy.progress import NullObserver, Observer
from snowsdeploy.runtime.probe import require_provider
from snowsdeploy.settings.export import ExportSettings
from snowsdeploy.settings.jobs import ValidateJob
from snowsdeploy.settings.policy import GatePolicy, with_goals
from snowsdeploy.settings.read import SettingsFile, read_settings
from snowsdeploy.settings.write import effective
from snowsdeploy.stages.export import Exporter, export, needs_samples
from snowsdeploy.stages.packages import Writers
from snowsdeploy.stages.prune import Pruned
from snowsdeploy.stages.run_directory import RunDirectory
from snowsdeploy.stages.run_files import (
    config_of,
    earlier_export,
    load_export,
    load_pruned,
    policy_of,
    report_before,
    source_of_data,
    stage_command,
    write_config,
    write_value,
    write_verdict,
)
from snowsdeploy.stages.samples import open_calibration, open_evaluation, require_fit
from snowsdeploy.stages.task import judge_of, task_remarks
from snowsdeploy.stages.validate import (
    RUN_HERE,
    SECTIONS,
    Section,
    known_variants,
    renewed_sections,
    validate,
)
from snowsdeploy.values import ExportReport, Report

P = ParamSpec("P")
T = TypeVar("T")

_ENGINE: tuple[Section, ...] = ("layout", "engine")
_RUN: tuple[Section, ...] = ("layout", "engine", "parity", "accuracy", "latency")
# What an option of the validation stage renews, where it is given beside a report of the same files.
_RENEWS: dict[str, tuple[Section, ...]] = {
    "engine_log": _ENGINE,
    "engine_layers": _ENGINE,
    "eval_data": ("parity", "accuracy"),
    "eval_batch": ("accuracy",),
    "task": ("accuracy",),
    "ignore_index": ("accuracy",),
    "metric": ("accuracy",),
    "metric_goal": (),
    "compile_for": ("compilation",),
    "latency_batch": ("latency",),
    "latency_runs": ("latency",),
    "provider": _RUN,
    "provider_option": _RUN,
    "allow_fallback": _RUN,
    "engine_cache": _RUN,
    "policy": (),
}


def _held(job: Callable[Concatenate[Path, P], T]) -> Callable[Concatenate[Path, P], T]:
    """A job on a run directory to which nobody else writes meanwhile."""

    @wraps(job)
    def run(folder: Path, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with RunDirectory(folder).locked() if folder.is_dir() else nullcontext():
            return job(folder, *args, **kwargs)

    return run


@_held
def run_export(
    folder: Path,
    given: Mapping[str, Any],
    exporter: Callable[[ExportSettings], Exporter],
    *,
    writers: Writers | None = None,
    data: object = None,
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
        data: Where the calibration images are now, if not where they were, or the images themselves.
        samples: The calibration images in their order.
        file: More settings, of a TOML file; below `given`.
        observer: Told about progress.
        command: Recorded.

    Raises:
        SnowsDeployError: As `run_main_job`.
    """
    run = RunDirectory(folder)
    pruned, settings = load_pruned(run), read_settings(ExportSettings, given, file)
    written = effective(settings)
    if samples is None and needs_samples(settings):
        samples = open_calibration(pruned.report, pruned.dense, data, was=source_of_data(run))
    earlier = earlier_export(run)
    observer = observer or NullObserver()
    for precision in sorted(set(earlier.asked if earlier else ()) - set(settings.precision)):
        observer.warn(f"{precision} is not in --precision now: validate will judge without it")
    files = export(
        pruned,
        settings,
        exporter=exporter(settings),
        place=run,
        samples=samples,
        writers=writers,
        observer=observer,
    )
    files = files.model_copy(
        update={"commands": (*(earlier.commands if earlier else ()), *stage_command("export", command))}
    )
    write_value(run.export, files)
    write_config(run, written, None)
    return files


@_held
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
    config, more = config_of(run), file or SettingsFile()
    settings = read_settings(ValidateJob, given, _laid_over(config, more))
    written = effective(settings)
    asked = {k for k, v in given.items() if v is not None} | (set(more.values) & set(_RENEWS))
    asked |= set() if evaluation is None else {"eval_data"}
    asked |= set() if policy is None and more.policy is None else {"policy"}
    limits = with_goals(policy or policy_of(settings.policy, given, more, config), settings.metric_goal)
    pruned, files = load_pruned(run), load_export(run)
    before = report_before(run, observer)
    renew = {section for name in asked for section in _RENEWS[name]} if asked else set(SECTIONS)
    engines = read_accounts(settings.engine_log, settings.engine_layers, files)
    known = known_variants(before, files)
    needed = renew if len(known) == len(files.judged) else set(SECTIONS)  # a file that is not known is measured whole
    if needed & RUN_HERE:
        require_provider(settings)
    if settings.compile_for and "compilation" in needed:
        require_compiler()
    if evaluation is not None:
        require_fit(evaluation, pruned.dense, "eval_data")
    elif needed & {"accuracy", "parity"}:
        evaluation = open_evaluation(settings.eval_data, pruned.dense)
    if evaluation is None and needed & {"accuracy", "parity"}:
        pruned = replace(pruned, samples=_calibration(run, pruned, observer))
    judge = judge_of(settings, pruned.dense, evaluation)
    for text in task_remarks(judge, evaluation, pruned.dense):
        observer.warn(text)
    report = validate(
        pruned, files, evaluation, settings, judge=judge, engines=engines, before=before, renew=renew, observer=observer
    )
    renewed = renewed_sections(known, report)
    earlier = before.commands if before else pruned.report.commands
    history = dict.fromkeys((*earlier, *pruned.report.commands, *files.commands))
    commands = (*history, *stage_command("validate", command, renewed))
    judged = write_verdict(report.model_copy(update={"commands": commands}), limits, run)
    write_config(run, written, limits)
    return judged


def _calibration(run: RunDirectory, pruned: Pruned, observer: Observer) -> Samples | None:
    """What the run was calibrated on, if it is still there."""
    try:
        return open_calibration(pruned.report, pruned.dense, was=source_of_data(run))
    except DataError as error:
        observer.warn(f"outputs are compared on random values: {error.what} ({error.seen})")
        return None


def _laid_over(below: SettingsFile, above: SettingsFile | None) -> SettingsFile:
    if above is None:
        return below
    return SettingsFile({**below.values, **above.values}, policy=above.policy or below.policy)
