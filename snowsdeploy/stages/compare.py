"""Selectors under solvers on one model: a run directory each, and one comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from snowsdeploy.data.digest import tensors_digest
from snowsdeploy.errors import SnowsDeployError
from snowsdeploy.files import write_text_atomic
from snowsdeploy.progress import Observer
from snowsdeploy.report.compare import render_comparison
from snowsdeploy.report.store import read_report
from snowsdeploy.settings.jobs import CompareJob, MainJob
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.read import load_policy
from snowsdeploy.stages.export import Exporter
from snowsdeploy.stages.inputs import Inputs, load_inputs
from snowsdeploy.stages.job import Load, load_all, run_main_job
from snowsdeploy.stages.run_directory import cannot_write
from snowsdeploy.values import ComparedRun, Comparison, Report

_SETTINGS = "settings.json"  # beside a run's report: what it was made with


def jobs_of(settings: CompareJob) -> dict[str, MainJob]:
    """A main job for each selector under each solver, by name; speed does not depend on which weights stay."""
    given = settings.model_dump(include=settings.model_fields_set & set(MainJob.model_fields) - CompareJob.fixed)
    given |= {"latency_batch": (1,), "latency_runs": 5}
    return {
        (name := f"{selector}-{solver}"): MainJob.model_validate(
            {**given, "selector": selector, "solver": solver, "out": settings.out / name}
        )
        for selector in settings.selectors
        for solver in settings.solvers
    }


def compare(
    folder: Path,
    jobs: Mapping[str, MainJob],
    exporter: Exporter,
    observer: Observer,
    *,
    load: Load = load_inputs,
    policy: GatePolicy | None = None,
) -> Comparison:
    """Run what has not been run before; leaves `comparison.json` and `comparison.html` in the folder.

    A run that fails is reported with its reason and the others go on.

    Args:
        folder: Where the comparison goes; each run has a folder of its own.
        jobs: Settings by name.
        exporter: Writes the ONNX files.
        load: As in `run_main_job`.
        policy: As in `run_main_job`.
        observer: Told about progress.

    Raises:
        UsageError: The policy cannot be read.
        OutputError: The folder cannot be written.
    """
    first = next(iter(jobs.values()))
    limits = policy or (load_policy(first.policy) if first.policy else GatePolicy())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    inputs = load_all(first, load, first.eval_data, observer)  # the same for all runs
    rows, reports = [], dict[str, Report]()
    for name, job in jobs.items():
        observer.stage("compare", name)
        try:
            reports[name] = _run(job, exporter, observer, inputs, limits)
            rows.append(_row(job, reports[name]))
        except SnowsDeployError as error:
            observer.warn(f"{name}: {error.what}")
            problem = ": ".join(text for text in (error.what, error.seen) if text)
            rows.append(ComparedRun(selector=job.selector, solver=job.solver, problem=problem))
    result = Comparison(pattern=first.pattern, runs=tuple(rows))
    write_text_atomic(folder / "comparison.json", result.model_dump_json(indent=2) + "\n")
    if reports:
        write_text_atomic(folder / "comparison.html", render_comparison(reports))
    return result


def _run(job: MainJob, exporter: Exporter, observer: Observer, inputs: Inputs, policy: GatePolicy) -> Report:
    """What a complete run of the same model, images, settings and policy left, else a new one.

    An interrupted run is continued.
    """
    settings, report = job.out / _SETTINGS, job.out / "report.json"
    made_with = _key(job, inputs, policy)
    same = settings.is_file() and settings.read_text(encoding="utf-8") == made_with
    if same and report.is_file():
        return read_report(report)
    job = job.model_copy(update={"resume": same, "force": not same})
    job.out.mkdir(parents=True, exist_ok=True)
    write_text_atomic(settings, made_with)
    made = run_main_job(job, exporter, observer=observer, load=lambda *_: inputs, policy=policy)
    assert made is not None  # of one process
    return made


def _key(job: MainJob, inputs: Inputs, policy: GatePolicy) -> str:
    facts = {
        "settings": job.model_dump(mode="json", exclude={"force", "resume", "policy", "model_arg"}),
        "program": tensors_digest(inputs.program.state_dict),
        "data": inputs.calibration.info.fingerprint,
        "eval_data": inputs.evaluation.info.fingerprint if inputs.evaluation else None,
        "policy": policy.model_dump(mode="json"),
    }
    return json.dumps(facts, sort_keys=True)


def _row(job: MainJob, report: Report) -> ComparedRun:
    variant = report.variants[0]
    accuracy, solves = variant.accuracy, report.prune.solves
    return ComparedRun(
        selector=job.selector,
        solver=job.solver,
        accuracy=accuracy,
        objective=sum(solve.loss_final for solve in solves) / len(solves) if solves else None,
        coverage=variant.sparsity.coverage if variant.sparsity else None,
        seconds=report.prune.seconds,
    )
