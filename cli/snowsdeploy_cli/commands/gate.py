"""`snowsdeploy gate`: judge a report again, and tell a CI server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snowsdeploy_cli.arguments import AsJson, PolicyFile, ReportFile

if TYPE_CHECKING:
    from snowsdeploy.values import Report, RuleResult, Verdict

Baseline = Annotated[Path | None, typer.Option("--baseline", help="An earlier report.json, for the relative limits.")]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="Read the ONNX files again: their digests and layout must be those of the report."),
]
Files = Annotated[
    Path | None,
    typer.Option("--files", help="Folder of the files to verify, if they do not lie where the report says."),
]
JUnit = Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML, one test case a gate.")]
Benchmark = Annotated[Path | None, typer.Option("--benchmark", help="Write the figures as a benchmark JSON array.")]


def command(
    report: ReportFile,
    *,
    as_json: AsJson = False,
    policy: PolicyFile = None,
    baseline: Baseline = None,
    verify: Verify = False,
    files: Files = None,
    junit: JUnit = None,
    benchmark: Benchmark = None,
) -> None:
    """Judge a report by a policy: exit 0 passed, 4 failed, 5 inconclusive.

    On GitHub Actions the summary is appended to the job's summary, and gates that do not pass become annotations.
    """
    from snowsdeploy.gate.judge import judge
    from snowsdeploy.report.store import read_report
    from snowsdeploy.settings.policy import GatePolicy
    from snowsdeploy.settings.read import load_policy
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.outcome import FAILED_TO_RUN, PASSED, exit_code
    from snowsdeploy_cli.render import print_verdict

    found, before = read_report(report), read_report(baseline, "--baseline") if baseline else None
    limits = load_policy(policy) if policy else GatePolicy()
    verdict = judge(found, limits, before, _proven(found, files) if verify or files else ())
    if as_json:
        typer.echo(verdict.model_dump_json(indent=2))
    else:
        print_verdict(make_console(), verdict)
    # The verdict stands; what is written beside it comes after. A file that was asked for and is lacking is no pass.
    written = _write_files(found, verdict, junit, benchmark)
    _tell_github(found, verdict)
    code = exit_code(verdict)
    raise typer.Exit(code if written or code != PASSED else FAILED_TO_RUN)


def _proven(report: Report, folder: Path | None) -> tuple[RuleResult, ...]:
    from snowsdeploy.layout.verify import verify_files  # takes ONNX, which a gate alone does not need

    return verify_files(report, folder)


def _write_files(report: Report, verdict: Verdict, junit: Path | None, benchmark: Path | None) -> bool:
    """Write what was asked for; whether all of it could be."""
    from snowsdeploy.files import write_text_atomic
    from snowsdeploy.report.benchmark import render_benchmark
    from snowsdeploy.report.junit import render_junit

    written = True
    if junit:
        written &= _attempt(f"--junit {junit}", lambda: write_text_atomic(junit, render_junit(report, verdict)))
    if benchmark:
        written &= _attempt(f"--benchmark {benchmark}", lambda: write_text_atomic(benchmark, render_benchmark(report)))
    return written


def _tell_github(report: Report, verdict: Verdict) -> None:
    from snowsdeploy.report.annotations import render_annotations
    from snowsdeploy.report.markdown import render_markdown

    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in render_annotations(verdict):
            typer.echo(line, err=True)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        text = render_markdown(report.model_copy(update={"verdict": verdict}))
        _attempt(f"GITHUB_STEP_SUMMARY {summary}", lambda: _append(Path(summary), text))


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)


def _attempt(what: str, write: Callable[[], None]) -> bool:
    """Write a file beside the verdict; one warning where that cannot be."""
    from snowsdeploy.plain_text import plain

    try:
        write()
    except OSError as error:
        typer.echo(plain(f"warning: {what} cannot be written: {error.strerror or error}"), err=True)
        return False
    return True
