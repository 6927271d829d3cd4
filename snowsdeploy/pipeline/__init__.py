"""The main job and its stages as Python functions; the command line calls these and nothing else.

    load -> prune -> export -> validate -> judge, a module each

A run directory holds what each stage left: `program.pt2` (dense), `pruned.safetensors` and `prune.json`, `dense.onnx`
and `model.onnx` (for other precisions `dense.fp16.onnx` and the like; `serving.onnx` with preprocessing or output
ends), a folder for each other format, `export.json`, `report.json`, `summary.md` and `report.html`.
Exporters and writers of formats come in as values, so that the library never imports them.
"""

from __future__ import annotations

import time
from pathlib import Path

from snowsdeploy.artifacts import ExportReport, PruneReport, Report
from snowsdeploy.config import ExportSettings, RunConfig, ValidateSettings
from snowsdeploy.distributed import Launch, from_first, rank
from snowsdeploy.gate.policy import GatePolicy, load_policy
from snowsdeploy.pipeline.engines import read_accounts
from snowsdeploy.pipeline.export import Exporter, export_programs, load_export
from snowsdeploy.pipeline.load import load_program
from snowsdeploy.pipeline.packages import PackageWriter, Writers, require_formats
from snowsdeploy.pipeline.prune import load_run, prune_model
from snowsdeploy.pipeline.settings import make_plan
from snowsdeploy.pipeline.validate import validate_programs
from snowsdeploy.progress import NullObserver, Observer
from snowsdeploy.report.store import read_report
from snowsdeploy.run_directory import RunDirectory
from snowsdeploy.validation.probe import require_provider

__all__ = ["Exporter", "PackageWriter", "export", "load_program", "make_plan", "prune", "prune_export", "validate"]


def prune_export(
    config: RunConfig,
    exporter: Exporter,
    observer: Observer | None = None,
    command: str = "",
    writers: Writers | None = None,
    *,
    launch: Launch | None = None,
) -> Report | None:
    """Checkpoint -> pruned, verified ONNX model, its evidence and verdict.

    Of several processes (torchrun) all solve, and the first does the rest; the others return None.

    Args:
        config: All settings.
        exporter: Writes the ONNX files.
        observer: Told about progress.
        command: Recorded in the report, for repeating the run.
        writers: Of the formats beside ONNX.
        launch: By torchrun; a run that it started again goes on where it ended.

    Raises:
        SnowsDeployError: Any of its subclasses; see `snowsdeploy.errors`.
    """
    observer = observer or NullObserver()
    policy = load_policy(config.policy) if config.policy else GatePolicy()
    run = RunDirectory(config.out)
    require_formats(config.format, writers or {}, run)
    if from_first(run.taken_before(launch) and run.report.is_file()):
        # a gate failed, and torchrun started the processes again for the exit code's sake
        return None if rank() else read_report(run.report)
    program, pruned, report = prune_model(config, run, observer, launch)
    if rank():
        return None
    seconds = {"prune": report.seconds}
    started = time.perf_counter()
    artifacts = export_programs(
        program, pruned, report, run, exporter, settings=config, writers=writers or {}, observer=observer
    )
    seconds["export"] = time.perf_counter() - started
    result = validate_programs(
        pruned, report, artifacts, run, config, policy=policy, observer=observer, command=command, seconds=seconds
    )
    if result.verdict and result.verdict.verdict == "pass":
        run.launch.unlink(missing_ok=True)
    return result


def prune(config: RunConfig, observer: Observer | None = None, launch: Launch | None = None) -> PruneReport:
    """The pruning stage alone; leaves `program.pt2`, `pruned.safetensors` and `prune.json`.

    Args:
        config: All settings.
        observer: Told about progress.
        launch: As in `prune_export`.

    Raises:
        SnowsDeployError: As `prune_export`.
    """
    run = RunDirectory(config.out)
    report = prune_model(config, run, observer or NullObserver(), launch)[2]
    if rank() == 0:
        run.launch.unlink(missing_ok=True)
    return report


def export(
    folder: Path,
    exporter: Exporter,
    settings: ExportSettings | None = None,
    observer: Observer | None = None,
    writers: Writers | None = None,
) -> ExportReport:
    """The export stage alone, on what `prune` left.

    Raises:
        SnowsDeployError: As `prune_export`.
    """
    run = RunDirectory(folder)
    program, pruned, report = load_run(run)
    return export_programs(
        program,
        pruned,
        report,
        run,
        exporter,
        settings=settings or ExportSettings(),
        writers=writers or {},
        observer=observer or NullObserver(),
    )


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
    require_provider(settings)
    _, pruned, report = load_run(run)
    artifacts = load_export(run)
    engines = read_accounts(settings.engine_log, settings.engine_layers, artifacts)
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
        engines=engines,
    )
