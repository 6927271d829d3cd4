"""The files of a run directory: what each stage leaves there, written whole and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from snowsdeploy.errors import OutputError, cause
from snowsdeploy.files import atomic_path, sha256_of, write_text_atomic, writing
from snowsdeploy.gate.judge import judge
from snowsdeploy.models.adopt import Wanted, adopt
from snowsdeploy.models.onnx.importer import import_onnx
from snowsdeploy.models.program import saved_source
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.models.tensor_files import save_tensors
from snowsdeploy.progress import Observer
from snowsdeploy.report.html import render_html
from snowsdeploy.report.markdown import render_markdown
from snowsdeploy.report.store import read_report, write_report
from snowsdeploy.runtime.environment import installed_versions
from snowsdeploy.settings.base import option_of
from snowsdeploy.settings.calibration import CalibrationSettings
from snowsdeploy.settings.model import ModelSettings
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.prune import PruneSettings
from snowsdeploy.settings.read import SettingsFile, load_policy, read_file
from snowsdeploy.settings.write import Effective, config_toml
from snowsdeploy.stages.prune import Pruned
from snowsdeploy.stages.run_directory import RunDirectory
from snowsdeploy.values import ExportReport, FilePair, OnnxArtifact, Precision, PruneReport, Report, StageCommand

_MAKES_WEIGHTS = tuple(f for kind in (ModelSettings, CalibrationSettings, PruneSettings) for f in kind.model_fields)
_AS_WRITTEN = "the files that snowsdeploy prune or prune-export left"
_PRUNE_AGAIN = "run snowsdeploy prune or prune-export again, with --force"
_VERSIONS = ("snowsdeploy", "torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime")


def load_pruned(run: RunDirectory) -> Pruned:
    """What the pruning stage left.

    Raises:
        OutputError: The directory is not a run, or a file in it is damaged.
    """
    if not run.path.is_dir():
        raise OutputError(
            "the run directory does not exist" if not run.path.exists() else "the run directory is no directory",
            seen=run.path,
            allowed="a directory that snowsdeploy prune or prune-export has written",
            fix="check the path",
        )
    missing = [p.name for p in (run.program, run.weights, run.masks, run.prune) if not p.is_file()]
    if missing:
        raise OutputError(
            "the directory holds no pruning run",
            seen=f"{run.path}: no {', '.join(missing)}",
            allowed="a directory that snowsdeploy prune or prune-export has written completely",
            fix="run snowsdeploy prune or prune-export with --out on it first",
        )
    try:
        report = PruneReport.model_validate_json(run.prune.read_text(encoding="utf-8"))
        tensors, masks = load_file(run.weights), load_file(run.masks)
    except (ValueError, OSError, SafetensorError) as error:
        raise OutputError(
            "the pruning run is damaged",
            seen=f"{run.path}: {cause(error)}",
            allowed=_AS_WRITTEN,
            fix=_PRUNE_AGAIN,
        ) from error
    loaded = load_model(ModelRequest(str(run.program)))
    source = saved_source(run.program)
    if loaded.signature is None or source is None or isinstance(loaded.model, nn.Module):
        raise OutputError(
            "the pruning run does not say how it was made",
            seen=f"{run.program}: nothing about its source, inputs and outputs",
            allowed=_AS_WRITTEN,
            fix=_PRUNE_AGAIN,
        )
    signature = loaded.signature
    wanted = Wanted(signature.inputs, output_names=signature.outputs, dynamic=signature.dynamic)
    file = import_onnx(run.original).file if source.format == "onnx" else None
    pruned = Pruned(adopt(loaded.model, loaded.preprocessing, source, wanted, file), tensors, masks, report)
    _require_as_left(pruned, run)
    return pruned


def _require_as_left(pruned: Pruned, run: RunDirectory) -> None:
    """Refuse a run whose files no longer fit each other."""
    layers = ProgramGraph(pruned.dense).layers
    stated = {d.weight: (d.name, d.shape) for d in pruned.report.pruned}
    real = {w: (layers[w].name, tuple(pruned.masks[w].shape)) for w in pruned.masks if w in layers}
    wrong = [] if stated == real else [run.prune.name]
    held, left = pruned.digests(), pruned.report.tensors
    files = {"dense": run.program, "weights": run.weights, "masks": run.masks}
    wrong += [path.name for part, path in files.items() if left is None or getattr(held, part) != getattr(left, part)]
    if wrong:
        raise OutputError(
            "the pruning run has been changed since it was made",
            seen=f"{run.path}: {', '.join(wrong)}",
            allowed="the tensors that snowsdeploy prune left",
            fix="run it again; other weights are a new model, given as MODEL",
        )


def load_export(run: RunDirectory) -> ExportReport:
    """What the export stage left; its files must still be what was exported.

    Raises:
        OutputError: Not exported, damaged, or changed since.
    """
    export_first = f"run snowsdeploy export {run.path} first"
    if not run.export.is_file():
        raise OutputError(
            "the directory holds no export",
            seen=f"{run.path}: no {run.export.name}",
            allowed="a run directory with what snowsdeploy export or prune-export writes",
            fix=export_first,
        )
    try:
        files = ExportReport.from_json_in(run.export.read_text(encoding="utf-8"), run.path)
    except (OSError, ValueError) as error:
        raise OutputError(
            "what the export left cannot be read",
            seen=f"{run.export}: {cause(error)}",
            allowed=f"{run.export.name} as this version of snowsdeploy writes it",
            fix=export_first,
        ) from error
    for file in (*(f for pair in files.pairs for f in (pair.dense, pair.sparse)), *files.serving):
        _require_unchanged(file)
    return files


def _require_unchanged(artifact: OnnxArtifact) -> None:
    there = artifact.path.is_file()
    if not there or sha256_of(artifact.path) != artifact.sha256:
        raise OutputError(
            f"an exported file {'has changed since its export' if there else 'is missing'}",
            seen=artifact.path,
            allowed="the file that the export wrote, byte for byte",
            fix=f"write it again: snowsdeploy export {artifact.path.parent}",
        )


def is_changed(run: RunDirectory, path: Path, precision: Precision) -> bool:
    """Whether a file is another than the export stage wrote."""
    earlier = earlier_export(run)
    pairs: tuple[FilePair, ...] = () if earlier is None else earlier.pairs
    return sha256_of(path) not in [pair.sparse.sha256 for pair in pairs if pair.precision == precision]


def config_of(run: RunDirectory) -> SettingsFile:
    """What a run was made with; nothing where it does not say."""
    return read_file(run.config, "the run's settings") if run.config.is_file() else SettingsFile()


def source_of_data(run: RunDirectory) -> str | None:
    """Where a run's calibration images are, by its absolute path; None where the run does not say."""
    source = config_of(run).values.get("data")
    return None if source is None else str(source)


def require_same(run: RunDirectory, settings: Effective) -> None:
    """Refuse to go on with a complete pruning run that other settings made.

    Raises:
        OutputError: There is one.
    """
    if not run.config.is_file() or not run.prune.is_file():
        return
    before = config_of(run)
    old, new = {**before.resolved, **before.values}, {**settings.resolved, **settings.values}
    differ = [n for n in _MAKES_WEIGHTS if n in settings.names and old.get(n) != new.get(n)]
    if differ:
        rows = [f"{option_of(n)} {new.get(n, 'none')}, was {old.get(n, 'none')}" for n in differ]
        raise OutputError(
            "--resume would replace a complete run that was made with other settings",
            seen=f"{run.path}: {'; '.join(rows)}",
            allowed="the settings that the run was made with",
            fix="use --force to replace it, or another --out",
        )


def write_config(run: RunDirectory, settings: Effective, policy: GatePolicy | None) -> None:
    """Lay the effective settings of a stage over what the run's file holds."""
    before = config_of(run)
    limits, versions = policy or before.policy or GatePolicy(), before.versions or installed_versions(_VERSIONS)
    write_text_atomic(run.config, config_toml(settings.over(before.values, before.resolved), limits, versions))


def write_pruned(run: RunDirectory, pruned: Pruned) -> Pruned:
    """Leave what the pruning stage made; returns it with its tensors' digests in the report, as it is read back."""
    pruned = replace(pruned, report=pruned.report.model_copy(update={"tensors": pruned.digests()}))
    pruned.dense.save(run.program)
    if (file := pruned.dense.file) is not None:
        with writing(run.original), atomic_path(run.original) as target:
            target.write_bytes(file.model.SerializeToString())
    save_tensors(run.weights, pruned.tensors)
    save_tensors(run.masks, pruned.masks)
    write_value(run.prune, pruned.report)
    return pruned


def write_value(path: Path, value: PruneReport | ExportReport) -> None:
    """Write a stage's report, with paths relative to its folder."""
    write_text_atomic(path, value.json_in(path.parent))


def write_verdict(report: Report, policy: GatePolicy, run: RunDirectory) -> Report:
    """Judge a report and write `report.json`, `summary.md` and `report.html`."""
    report = report.model_copy(update={"verdict": judge(report, policy)})
    write_report(report, run.report)
    write_text_atomic(run.summary, render_markdown(report))
    write_text_atomic(run.page, render_html(report))
    return report


def earlier_export(run: RunDirectory) -> ExportReport | None:
    """What the export stage left before, whatever has become of its files."""
    try:
        return ExportReport.from_json_in(run.export.read_text(encoding="utf-8"), run.path)
    except (OSError, ValueError):
        return None


def report_before(run: RunDirectory, observer: Observer) -> Report | None:
    """The run's report, whose sections can be kept."""
    if not run.report.is_file():
        return None
    try:
        return read_report(run.report)
    except OutputError as error:
        observer.warn(f"the report of an earlier validation is not used: {error.seen or error.what}")
        return None


def policy_of(path: Path | None, given: Mapping[str, Any] | None = None, *files: SettingsFile) -> GatePolicy:
    """The limits: of the option, else of the first file that has some, else the defaults."""
    if path is not None and (given is None or given.get("policy") is not None):
        return load_policy(path)
    for file in files:
        if file.policy is not None:
            return file.policy
        if "policy" in file.values:
            return load_policy(Path(file.values["policy"]))
    return GatePolicy()


def stage_command(stage: str, text: str, renewed: tuple[str, ...] | None = None) -> tuple[StageCommand, ...]:
    """A command with the time; none where there is none, as in a call from Python."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return (StageCommand(stage=stage, command=text, created=now, renewed=renewed),) if text else ()
