"""Selectors under solvers on one model: a run directory each, and one comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from snowsdeploy.artifacts import ComparedRun, Comparison, Report
from snowsdeploy.config import RunConfig
from snowsdeploy.errors import OutputError, SnowsDeployError
from snowsdeploy.files import write_text_atomic
from snowsdeploy.pipeline import prune_export
from snowsdeploy.pipeline.export import Exporter
from snowsdeploy.progress import Observer
from snowsdeploy.report.compare import render_comparison
from snowsdeploy.report.store import read_report

_SETTINGS = "settings.json"  # beside a run's report: what it was made with


def compare(folder: Path, configs: Mapping[str, RunConfig], exporter: Exporter, observer: Observer) -> Comparison:
    """Run what has not been run before; leaves `comparison.json` and `comparison.html` in the folder.

    A run that fails is reported with its reason and the others go on.

    Args:
        folder: Where the comparison goes; each run has a folder of its own.
        configs: Settings by name.
        exporter: Writes the ONNX files.
        observer: Told about progress.

    Raises:
        OutputError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError("--out cannot be written", seen=f"{folder}: {error}", fix="choose another --out") from error
    rows, reports = [], dict[str, Report]()
    for name, config in configs.items():
        observer.stage("compare", name)
        try:
            reports[name] = _run(config, exporter, observer)
            rows.append(_row(config, reports[name]))
        except SnowsDeployError as error:
            observer.warn(f"{name}: {error.what}")
            problem = ": ".join(text for text in (error.what, error.seen) if text)
            rows.append(ComparedRun(selector=config.selector, solver=config.solver, problem=problem))
    pattern = next(iter(configs.values())).pattern
    result = Comparison(pattern=pattern, runs=tuple(rows))
    write_text_atomic(folder / "comparison.json", result.model_dump_json(indent=2) + "\n")
    if reports:
        write_text_atomic(folder / "comparison.html", render_comparison(reports))
    return result


def _run(config: RunConfig, exporter: Exporter, observer: Observer) -> Report:
    """What a complete run of these settings left, else a new one, which continues an interrupted one."""
    settings, report = config.out / _SETTINGS, config.out / "report.json"
    made_with = config.model_dump_json(exclude={"force", "resume"})
    same = settings.is_file() and settings.read_text(encoding="utf-8") == made_with
    if same and report.is_file():
        return read_report(report)
    config = config.model_copy(update={"resume": same, "force": not same})
    config.out.mkdir(parents=True, exist_ok=True)
    write_text_atomic(settings, made_with)
    made = prune_export(config, exporter, observer)
    assert made is not None  # of one process
    return made


def _row(config: RunConfig, report: Report) -> ComparedRun:
    variant = report.variants[0]
    accuracy, solves = variant.accuracy, report.prune.solves
    return ComparedRun(
        selector=config.selector,
        solver=config.solver,
        dense_top1=accuracy.dense_top1 if accuracy else None,
        top1=accuracy.sparse_top1 if accuracy else None,
        agreement=accuracy.agreement.top1.value if accuracy else None,
        kl=accuracy.agreement.kl if accuracy else None,
        objective=sum(solve.loss_final for solve in solves) / len(solves) if solves else None,
        coverage=variant.sparsity.coverage if variant.sparsity else None,
        seconds=report.prune.seconds,
    )
