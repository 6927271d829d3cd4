"""`snowsdeploy gate`: judge a report again, and tell a CI server."""

from __future__ import annotations

import os
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
    from snowsdeploy.files import write_text_atomic
    from snowsdeploy.gate.judge import judge
    from snowsdeploy.report.benchmark import render_benchmark
    from snowsdeploy.report.junit import render_junit
    from snowsdeploy.report.store import read_report
    from snowsdeploy.settings.policy import GatePolicy
    from snowsdeploy.settings.read import load_policy
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.outcome import exit_code
    from snowsdeploy_cli.render import print_verdict

    found, before = read_report(report), read_report(baseline, "--baseline") if baseline else None
    limits = load_policy(policy) if policy else GatePolicy()
    verdict = judge(found, limits, before, _proven(found, files) if verify or files else ())
    if junit:
        write_text_atomic(junit, render_junit(found, verdict))
    if benchmark:
        write_text_atomic(benchmark, render_benchmark(found))
    _tell_github(found, verdict)
    if as_json:
        typer.echo(verdict.model_dump_json(indent=2))
    else:
        print_verdict(make_console(), verdict)
    raise typer.Exit(exit_code(verdict))


def _proven(report: Report, folder: Path | None) -> tuple[RuleResult, ...]:
    from snowsdeploy.layout.verify import verify_files  # takes ONNX, which a gate alone does not need

    return verify_files(report, folder)


def _tell_github(report: Report, verdict: Verdict) -> None:
    from snowsdeploy.report.annotations import render_annotations
    from snowsdeploy.report.markdown import render_markdown

    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(render_markdown(report.model_copy(update={"verdict": verdict})))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in render_annotations(verdict):
            typer.echo(line, err=True)
