"""Results as tables that read well at 80 columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.artifacts import (
        Accuracy,
        Latency,
        OnnxArtifact,
        Proportion,
        PruneReport,
        Report,
        SparsityEvidence,
        Verdict,
    )
    from snowsdeploy.validation.doctor import Diagnosis

_STYLE = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
_WORD = {"pass": "PASSED", "fail": "FAILED", "inconclusive": "INCONCLUSIVE"}


def print_summary(console: Console, report: Report, folder: Path) -> None:
    """The whole result: accuracy, latency, gates, files, and the verdict last, where the eye is."""
    console.print(f"\n[bold]{escape(report.source.arch or report.source.source)}[/], {report.prune.pattern}", end=", ")
    pruned = len(report.prune.pruned)
    console.print(f"{pruned} of {len(report.prune.decisions)} layers pruned")
    if report.accuracy is not None:
        _print_accuracy(console, report.accuracy)
    if report.latency is not None:
        _print_latency(console, report.latency)
    if report.verdict is not None:
        print_verdict(console, report.verdict)
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in report.seconds.items())
    memory = f"; peak memory {report.peak_memory_bytes / 2**30:.1f} GiB" if report.peak_memory_bytes else ""
    console.print(f"{seconds}{memory}")
    console.print(f"Written to {folder}: model.onnx, dense.onnx, report.json, summary.md", markup=False)


def _print_accuracy(console: Console, accuracy: Accuracy) -> None:
    table = Table(title=f"Accuracy on {accuracy.data.items} images, from the ONNX files", title_justify="left")
    for column in ("", "dense", "sparse"):
        table.add_column(column)
    for name, dense, sparse in (
        ("top-1", accuracy.dense_top1, accuracy.sparse_top1),
        ("top-5", accuracy.dense_top5, accuracy.sparse_top5),
    ):
        if dense is not None and sparse is not None:
            table.add_row(name, _percent(dense), _percent(sparse))
    same = accuracy.agreement
    table.add_row("agreement", "", f"{_percent(same.top1)}, cosine {same.cosine:.3f}")
    console.print(table)
    if accuracy.paired is None:
        console.print("No labels: agreement with the dense model, no accuracy.")
    else:
        p = accuracy.paired
        console.print(f"Drop {p.drop:.2f} points [{p.drop_low:.2f}, {p.drop_high:.2f}], McNemar p = {p.p_value:.2g}", markup=False)


def _print_latency(console: Console, latency: Latency) -> None:
    table = Table(title=f"Latency, ms, {latency.requested}", title_justify="left")
    for column in ("batch", "dense p50", "p99", "sparse p50", "p99", "dense / sparse"):
        table.add_column(column, justify="right")
    rows = {(s.role, s.batch): s for s in latency.series}
    for ratio in latency.ratios:
        d, s = rows["dense", ratio.batch], rows["sparse", ratio.batch]
        numbers = [f"{v:.2f}" for v in (d.p50_ms, d.p99_ms, s.p50_ms, s.p99_ms)]
        interval = escape(f"{ratio.speedup:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]")
        table.add_row(str(ratio.batch), *numbers, interval)
    console.print(table)
    if latency.note:
        console.print(latency.note, markup=False)


def print_verdict(console: Console, verdict: Verdict) -> None:
    """The gates and the verdict."""
    table = Table(title="Gates", title_justify="left")
    for column in ("gate", "measured", "limit", "verdict"):
        table.add_column(column)
    for rule in verdict.rules:
        table.add_row(rule.rule, escape(rule.measured), rule.limit, f"[{_STYLE[rule.verdict]}]{rule.verdict}[/]")
    console.print(table)
    for rule in verdict.rules:
        if rule.reason:
            console.print(f"{rule.rule}: {rule.reason}", markup=False)
    console.print(f"[bold {_STYLE[verdict.verdict]}]{_WORD[verdict.verdict]}[/]")


def print_pruning(console: Console, report: PruneReport, folder: Path) -> None:
    """What `prune` did."""
    groups: dict[str, list[str]] = defaultdict(list)
    for decision in report.decisions:
        groups[decision.reason].append(decision.name)
    pruned = groups.pop("", [])
    console.print(f"{len(pruned)} layers pruned to {report.pattern} in {report.seconds:.0f} s")
    for reason, names in groups.items():
        shown = ", ".join(names[:4]) + (f", +{len(names) - 4} more" if len(names) > 4 else "")  # noqa: PLR2004
        console.print(f"  dense, {reason}: {shown}", markup=False)
    console.print(f"Written to {folder}; next: snowsdeploy export {folder}", markup=False)


def print_files(console: Console, artifacts: Sequence[OnnxArtifact]) -> None:
    """Exported files."""
    for artifact in artifacts:
        console.print(f"{artifact.path}  {artifact.size_bytes / 2**20:.2f} MiB  opset {artifact.opset}", markup=False)


def print_evidence(console: Console, evidence: SparsityEvidence) -> None:
    """The layout of a file, layer by layer."""
    table = Table(title=f"{evidence.file.name}: {evidence.pattern}", title_justify="left")
    table.add_column("layer", overflow="fold")
    table.add_column("op")
    table.add_column("shape")
    table.add_column("zeros", justify="right")
    table.add_column("layout")
    for row in evidence.layers:
        layout = "[green]valid[/]" if row.layout_valid else row.note or f"{row.violations}/{row.groups} groups broken"
        table.add_row(escape(row.name), row.op, "x".join(map(str, row.shape)), f"{row.zeros:.0%}", layout)
    console.print(table)
    valid = sum(row.layout_valid for row in evidence.layers)
    console.print(f"{valid} of {len(evidence.layers)} layers hold {evidence.pattern}; {evidence.coverage:.1%} of weights")


def print_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """What `doctor` found."""
    environment = diagnosis.environment
    console.print(f"{environment.cpu}, {environment.machine}, {environment.memory_bytes / 2**30:.0f} GiB", markup=False)
    for gpu in diagnosis.gpus:
        cores = "sparse tensor cores" if gpu.sparse_tensor_cores else "no sparse tensor cores"
        console.print(f"{gpu.name}, compute capability {gpu.capability}: {cores}")
    table = Table(title="Execution providers, tried on a small model", title_justify="left")
    for column in ("provider", "loads", "uses 2:4", "problem"):
        table.add_column(column, overflow="fold")
    for provider in diagnosis.providers:
        loads = "[green]yes[/]" if provider.loads else "[red]no[/]"
        table.add_row(provider.name, loads, provider.uses_sparsity, escape(provider.problem))
    console.print(table)
    console.print(", ".join(f"{name} {version}" for name, version in environment.versions.items()), markup=False)
    for hint in diagnosis.hints:
        console.print(f"- {hint}", markup=False)
    for provider in diagnosis.providers:
        if provider.fix:
            console.print(f"- {provider.name}: {provider.fix}", markup=False)
    console.print(f"[bold]{diagnosis.verdict}[/]")


def _percent(value: Proportion) -> str:
    return escape(f"{value.value:.2%} [{value.low:.2%}, {value.high:.2%}]")
