"""The public functions: what the command line does, on Python objects as well as on strings and paths.

Settings are keyword arguments by the names of the command line's options, with `_` for `-` (docs/settings.md has all
of them); their values are those of Python, or texts as one would type them. Objects such as `PruneSettings` can be
given as `settings=`, one or several: what they were made with counts, and keywords come before them.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snowsdeploy.display import ConsoleObserver, in_notebook, make_console
from snowsdeploy.errors import UsageError
from snowsdeploy.gate.judge import judge as _judge
from snowsdeploy.install import require_extra
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.progress import NullObserver, Observer
from snowsdeploy.report.store import read_report
from snowsdeploy.settings.base import Settings
from snowsdeploy.settings.export import ExportSettings
from snowsdeploy.settings.jobs import CompareJob, MainJob, PlanJob, PruneJob
from snowsdeploy.settings.policy import GatePolicy, policy_of_table
from snowsdeploy.settings.profile import ProfileSettings
from snowsdeploy.settings.read import load_policy, read_settings
from snowsdeploy.settings.write import in_memory
from snowsdeploy.values import Comparison, ExportReport, Profile, Report, RuleResult, RunPlan, SparsityEvidence, Verdict

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from snowsdeploy.models.program import Program
    from snowsdeploy.stages.inputs import Inputs
    from snowsdeploy.stages.job import Load
    from snowsdeploy.stages.prune import Pruned

    Model = str | Path | nn.Module | ExportedProgram | Program

Policy = GatePolicy | Mapping[str, Any] | str | Path
Progress = bool | Observer


def prune_export(
    model: Model,
    *,
    data: object,
    eval_data: object = None,
    out: str | Path | None = None,
    policy: Policy | None = None,
    progress: Progress = True,
    **settings: object,
) -> Report:
    """Prune a model, export it, prove and judge it: the main job.

        report = snowsdeploy.prune_export(module, data=images, eval_data=(test_images, labels), effort="fast")
        report.variants[0].sparse.path  # the 2:4 ONNX file

    Args:
        model: A checkpoint's path or any other source that the command line takes; a `torch.nn.Module` on any device
            and in any mode, which is not changed; or a program of `torch.export`.
        data: Calibration images: a source as for `--data`; a float tensor `[n, C, H, W]` as the model takes it;
            `(tensor, labels)`; a torch `Dataset` of (image, label); any iterable of batches, such as a `DataLoader`, of
            which the first `samples` images are read; or `Samples`.
        eval_data: Evaluation images in the same forms; without labels the report has agreement and no accuracy.
        out: Run directory. Without it the files lie in a temporary folder that is removed with the returned report.
        policy: Limits of the gates: a `GatePolicy`, a mapping, or a TOML file.
        progress: Show it on a terminal or in a notebook, elsewhere only warnings; False for nothing; or an observer of
            your own.
        **settings: By the names of the command line.

    Returns:
        The judged report. In a notebook it shows as its page.

    Raises:
        SnowsDeployError: See `snowsdeploy.errors`; the message says what to do.
    """
    _require("prune_export")
    from snowsdeploy.stages.job import run_main_job
    from snowsdeploy_exporters import FORMATS, OnnxExporter

    with _observer(progress) as observer, _alone(), _folder(out) as (folder, owner):
        job = _settings(MainJob, settings, model=model, data=data, eval_data=eval_data, out=folder)
        report = run_main_job(
            job,
            OnnxExporter(job.opset, job.keep_fp32),
            writers=FORMATS,
            policy=_policy(policy),
            load=_loader(model, data, eval_data),
            observer=observer,
            command=_call("prune_export", model, settings),
        )
    assert report is not None  # of one process
    return report.owning(owner)


def prune(
    model: Model, *, data: object, out: str | Path | None = None, progress: Progress = True, **settings: object
) -> Pruned:
    """Choose masks and solve for the weights on them.

    Args:
        model: As for `prune_export`.
        data: As for `prune_export`.
        out: Run directory that keeps the result and survives a kill; nothing is written without it.
        progress: As for `prune_export`.
        **settings: By the names of the command line.

    Returns:
        The dense and the pruned program, the masks and a report of every solve.

    Raises:
        SnowsDeployError: As `prune_export`.
    """
    _require("prune")
    from snowsdeploy.stages.job import run_prune, run_prune_in_memory

    load = _loader(model, data, None)
    with _observer(progress) as observer, _alone():
        if out is None:
            job = _settings(PlanJob, settings, model=model, data=data)
            return run_prune_in_memory(job, load=load, observer=observer)
        pruned = _settings(PruneJob, settings, model=model, data=data, out=Path(out))
        return run_prune(pruned, load=load, observer=observer, command=_call("prune", model, settings))


def export(
    run: Pruned | str | Path,
    *,
    out: str | Path | None = None,
    data: object = None,
    progress: Progress = True,
    **settings: object,
) -> ExportReport:
    """Write the ONNX files of a pruned model, and prove the layout in each.

    Args:
        run: What `prune` returned, or a run directory.
        out: Where the files of a pruned model go, as a run directory. Without it they lie in a temporary folder that is
            removed with the returned value. A run directory keeps its own files.
        data: Where a run's calibration images are now, if not where they were; or the images themselves, if they were
            in memory.
        progress: As for `prune_export`.
        **settings: By the names of the command line.

    Raises:
        SnowsDeployError: As `prune_export`.
    """
    _require("export")
    from snowsdeploy.stages.export import require_ends
    from snowsdeploy.stages.job import save_pruned
    from snowsdeploy.stages.later import run_export
    from snowsdeploy_exporters import FORMATS, OnnxExporter

    if isinstance(run, str | Path) and out is not None:
        raise UsageError(
            "out is for a pruned model in memory",
            seen=f"out={str(out)!r} beside the run directory {run}",
            allowed="out= beside what prune returned, which has no folder yet",
            fix="call it without out=: a run directory keeps its own files",
        )
    given = _given(settings)
    chosen_settings = read_settings(ExportSettings, given)
    with _observer(progress) as observer, _alone(), _folder(run if isinstance(run, str | Path) else out) as place:
        folder, owner = place
        if not isinstance(run, str | Path):
            require_ends(chosen_settings, run.dense)
            save_pruned(run, folder)
        files = run_export(
            folder,
            given,
            lambda chosen: OnnxExporter(chosen.opset, chosen.keep_fp32),
            writers=FORMATS,
            data=data,
            samples=None if isinstance(run, str | Path) else run.samples,
            observer=observer,
            command=_call("export", run, settings),
        )
    return files.owning(owner)


def validate(
    run: str | Path,
    *,
    eval_data: object = None,
    policy: Policy | None = None,
    progress: Progress = True,
    **settings: object,
) -> Report:
    """Measure and judge the files of a run; what is not given is as the run had it.

    Args:
        run: A run directory, after `prune` and `export`.
        eval_data: As for `prune_export`; the run's own when not given.
        policy: As for `prune_export`; the run's own when not given.
        progress: As for `prune_export`.
        **settings: By the names of the command line.

    Raises:
        SnowsDeployError: As `prune_export`.
    """
    _require("validate")
    from snowsdeploy.data.memory import hold
    from snowsdeploy.stages.later import run_validate

    given = _given(settings)
    evaluation = None
    if isinstance(eval_data, str | Path):
        given["eval_data"] = str(eval_data)
    elif eval_data is not None:
        evaluation = hold(eval_data, option="eval_data")
    with _observer(progress) as observer, _alone():
        return run_validate(
            Path(run),
            given,
            policy=_policy(policy),
            evaluation=evaluation,
            observer=observer,
            command=_call("validate", run, settings),
        )


def judge(
    report: Report | str | Path,
    policy: Policy | None = None,
    baseline: Report | str | Path | None = None,
    *,
    verify: bool = False,
) -> Verdict:
    """Judge a report again, by another policy or against an earlier one; needs no PyTorch.

    Args:
        report: A report, or the path of a `report.json`.
        policy: As for `prune_export`; the defaults when not given.
        baseline: An earlier report, for the limits on regressions.
        verify: Read the ONNX files again: their digests and layout must be those of the report.

    Raises:
        OutputError: A file is no report, or the baseline is of something else.
        UsageError: The policy cannot be read.
    """
    found = read_report(Path(report)) if isinstance(report, str | Path) else report
    before = read_report(Path(baseline), "baseline") if isinstance(baseline, str | Path) else baseline
    return _judge(found, _policy(policy) or GatePolicy(), before, _proven(found) if verify else ())


def _proven(report: Report) -> tuple[RuleResult, ...]:
    from snowsdeploy.layout.verify import verify_files

    return verify_files(report)


def inspect(model: str | Path | nn.Module, pattern: str = "2:4") -> SparsityEvidence:
    """Where a model's weights hold a pattern, layer by layer; of an ONNX file it needs no PyTorch.

    Args:
        model: An ONNX file, a checkpoint, a safetensors or `.pt2` file; or a module.
        pattern: N:M.

    Raises:
        SourceError: The file cannot be read.
    """
    from snowsdeploy.layout.evidence import inspect_tensors
    from snowsdeploy.stages.inspect import inspect_file

    if isinstance(model, str | Path):
        return inspect_file(Path(model), Pattern.parse(pattern))
    state = ((name, (t != 0).detach().cpu().numpy()) for name, t in model.state_dict().items())
    return inspect_tensors(state, Path(type(model).__name__), Pattern.parse(pattern))


def profile(*files: str | Path, progress: Progress = True, **settings: object) -> Profile:
    """Time ONNX files side by side, and attribute the time of each to its operators; needs no PyTorch.

    Args:
        *files: ONNX files; ratios are against the first.
        progress: As for `prune_export`.
        **settings: By the names of the command line.

    Raises:
        SnowsDeployError: A file cannot be read or does not run there.
    """
    from snowsdeploy.measure.profile import profile as profile_paths

    with _observer(progress) as observer:
        paths = [Path(file) for file in files]
        return profile_paths(paths, read_settings(ProfileSettings, _given(settings)), observer=observer)


def plan(model: Model, *, data: object, progress: Progress = True, **settings: object) -> RunPlan:
    """Predict time, memory and disk of pruning on this machine.

    Args:
        model: As for `prune_export`.
        data: As for `prune_export`.
        progress: As for `prune_export`.
        **settings: By the names of the command line.

    Raises:
        SnowsDeployError: As `prune_export`.
    """
    _require("plan")
    from snowsdeploy.stages.job import run_plan

    with _observer(progress) as observer, _alone():
        job = _settings(PlanJob, settings, model=model, data=data)
        return run_plan(job, load=_loader(model, data, None), observer=observer)


def compare(
    model: Model,
    *,
    data: object,
    eval_data: object = None,
    out: str | Path | None = None,
    policy: Policy | None = None,
    progress: Progress = True,
    **settings: object,
) -> Comparison:
    """Run the main job with each selector under each solver.

    Args:
        model: As for `prune_export`.
        data: As for `prune_export`.
        eval_data: As for `prune_export`.
        out: Folder of the comparison, which goes on where it was interrupted; temporary when not given.
        policy: As for `prune_export`.
        progress: As for `prune_export`.
        **settings: By the names of the command line, among them `selectors` and `solvers`.

    Raises:
        SnowsDeployError: As `prune_export`; a run that fails is a row with its reason.
    """
    _require("compare")
    from snowsdeploy.stages.compare import compare as compare_jobs
    from snowsdeploy.stages.compare import jobs_of
    from snowsdeploy_exporters import OnnxExporter

    with _observer(progress) as observer, _alone(), _folder(out) as (folder, owner):
        job = _settings(CompareJob, settings, model=model, data=data, eval_data=eval_data, out=folder)
        load = _loader(model, data, eval_data)
        compared = compare_jobs(folder, jobs_of(job), OnnxExporter(), observer, load=load, policy=_policy(policy))
    return compared.owning(owner)


def _require(name: str) -> None:
    require_extra("prune", f"snowsdeploy.{name}")


def _settings(kind: type[Any], given: Mapping[str, Any], **objects: Any) -> Any:  # noqa: ANN401 - of any class
    """Validated settings, with what stands for objects where they want texts."""
    for name in ("model", "data"):
        if name in objects and objects[name] is None:
            raise UsageError(
                f"{name} must be given",
                seen=f"{name}=None",
                allowed="a path or source as the command line takes it, or an object",
                fix=f"pass {name}",
            )
    texts = {name: value if value is None or name == "out" else _text(value) for name, value in objects.items()}
    return read_settings(kind, {**_given(given), **texts})


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, those of settings objects below those that are named."""
    named = {name: value for name, value in settings.items() if name != "settings"}
    objects = settings.get("settings", ())
    values: dict[str, Any] = {}
    for part in (objects,) if isinstance(objects, Settings) else tuple(objects):
        if not isinstance(part, Settings):
            raise UsageError(
                "settings is no settings object",
                seen=type(part).__name__,
                allowed="PruneSettings and the like, or a list of them",
                fix="pass single settings by their names, as keyword arguments",
            )
        values |= {name: getattr(part, name) for name in part.model_fields_set}
    return values | named


def _text(value: object) -> str:
    """A source as it is; any other object by what it is."""
    return str(value) if isinstance(value, str | Path) else in_memory(value)


def _call(name: str, model: object, settings: Mapping[str, Any]) -> str:
    """A call as it was made, for the report."""
    arguments = [_text(model) if not isinstance(model, str | Path) else repr(str(model))]
    arguments += [f"{key}={value!r}" for key, value in settings.items()]
    return f"snowsdeploy.{name}({', '.join(arguments)})"


def _loader(model: Any, data: object, eval_data: object) -> Load:  # noqa: ANN401 - any model
    from snowsdeploy.stages.inputs import hold_inputs

    made: list[Inputs] = []

    def load(settings: PlanJob, _: str | None) -> Inputs:
        if not made:  # a comparison loads once
            made.append(hold_inputs(model, data, eval_data, settings))
        return made[0]

    return load


def _policy(policy: Policy | None) -> GatePolicy | None:
    if policy is None or isinstance(policy, GatePolicy):
        return policy
    return load_policy(Path(policy)) if isinstance(policy, str | Path) else policy_of_table(policy, "policy")


@contextmanager
def _folder(out: str | Path | None) -> Iterator[tuple[Path, object]]:
    """A folder and what owns it; a temporary one is removed when its owner is, or when the block fails."""
    if out is not None:
        yield Path(out), None
        return
    owner = _Temporary()
    try:
        yield owner.path, owner
    except BaseException:
        owner.remove()
        raise


class _Temporary:
    """A folder that is removed when nothing refers to this any more; values that own it are equal by what they say."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="snowsdeploy-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, _Temporary)

    __hash__ = None  # type: ignore[assignment]  # nothing is looked up by it

    def __deepcopy__(self, _: object) -> _Temporary:
        return self  # a copy of the value keeps the folder too


@contextmanager
def _alone() -> Iterator[None]:
    """What a caller's process has is not ours: its process group, and the state of its random numbers."""
    import torch

    from snowsdeploy.distributed import alone

    with alone(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield


@contextmanager
def _observer(progress: Progress) -> Iterator[Observer]:
    if not isinstance(progress, bool):
        yield progress
    elif progress:  # in a log, as of a job without a terminal, only warnings
        quiet = not (sys.stderr.isatty() or in_notebook())
        with ConsoleObserver(make_console(stderr=True), quiet=quiet) as observer:
            yield observer
    else:
        yield NullObserver()


__all__ = ["compare", "export", "inspect", "judge", "plan", "profile", "prune", "prune_export", "validate"]
