"""The whole result of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from snowsdeploy_cli.console import say
from snowsdeploy_cli.render.layers import print_engine, print_kept_dense, print_notes
from snowsdeploy_cli.render.permutation import print_permutation
from snowsdeploy_cli.render.table import make_table, two_lines
from snowsdeploy_cli.render.verdict import print_verdict

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.values import Accuracy, Latency, Report, Variant


def print_summary(console: Console, report: Report, folder: Path) -> None:
    """Layers, accuracy, latency, files, gates, and the verdict last, where the eye is."""
    _print_layers(console, report)
    for variant in report.variants:
        _print_variant(console, variant, report)
    for warning in report.warnings:
        say(console, f"warning: {warning}", style="yellow")
    memory = f"; peak memory {report.peak_memory_bytes / 2**30:.1f} GiB" if report.peak_memory_bytes else ""
    say(console, ", ".join(f"{stage} {value:.0f} s" for stage, value in report.seconds.items()) + memory)
    names = [file.path.name for variant in report.variants for file in (variant.sparse, variant.dense)]
    names += [file.path.name for file in report.serving] + [f"{package.format}/" for package in report.packages]
    say(console, f"Written to {folder}: {', '.join([*names, 'report.json', 'report.html', 'summary.md'])}")
    print_notes(console, report.packages)
    if report.verdict is not None:
        print_verdict(console, report.verdict)


def _print_layers(console: Console, report: Report) -> None:
    pruned, total = len(report.prune.pruned), len(report.prune.decisions)
    name = report.source.arch or report.source.source
    console.print()
    say(console, f"{name}: {pruned} of {total} layers pruned to {report.prune.pattern}", style="bold")
    say(console, f"It {report.signature}.")
    print_kept_dense(console, report.prune.decisions)
    print_permutation(console, report.prune.permutation)


def _print_variant(console: Console, variant: Variant, report: Report) -> None:
    name = variant.sparse.path.name
    if len(report.variants) > 1:
        console.print()
        say(console, f"{variant.precision.upper()}, {name}, {variant.sparse.size_bytes / 2**20:.2f} MiB", style="bold")
    if variant.sparse.kept:
        say(console, f"{len(variant.sparse.kept)} nodes stay in FP32: {', '.join(variant.sparse.kept)}")
    if (sparsity := variant.sparsity) is not None:
        valid = len({row.name for row in sparsity.layers if row.layout_valid} & set(sparsity.expected))
        share = f"{sparsity.coverage:.1%} of all weights of convolutions and matrix products"
        say(console, f"In {name} {valid} of {len(sparsity.expected)} hold the layout: {share}.")
    if variant.engine is not None:
        print_engine(console, variant.engine)
    if variant.crash:
        say(console, f"ONNX Runtime ends with a {variant.crash} when it runs {name}: nothing more is measured.")
    if variant.parity is not None:
        say(console, f"PyTorch against ONNX Runtime: {variant.parity}.")
    if (found := variant.compilation) is not None:
        say(
            console,
            f"{found.compiler}, {', '.join(found.capabilities)}: {'accepted' if found.accepted else 'refused'}.",
        )
    if variant.accuracy is not None:
        _print_accuracy(console, variant.accuracy)
    if variant.latency is not None:
        _print_latency(console, variant.latency)


def _print_accuracy(console: Console, accuracy: Accuracy) -> None:
    images = f"{accuracy.data.items} images" + (" of the calibration" if accuracy.calibration else "")
    if accuracy.metrics:
        table = make_table(f"Accuracy on {images}, from the ONNX files", "", "dense", "sparse")
        for metric in accuracy.metrics:
            table.add_row(metric.label, *(metric.estimated(v) for v in (metric.dense, metric.sparse)))
        console.print(table)
    for metric in accuracy.metrics[:1]:
        if metric.same_precision is not None:
            same = metric.estimated(metric.same_precision)
            say(console, f"The dense model in this precision has {metric.label} {same}.")
    for metric in accuracy.metrics:
        if metric.usual_drop is not None or metric is accuracy.metric:
            say(console, f"{metric.fallen}.")
    if not accuracy.metrics:
        say(console, f"{images} without labels: agreement with the dense model, no accuracy.")
    first, *others = accuracy.agreement[:6]
    rest = [f"{m.label} {m.written(m.measured.value)}" for m in others]
    alike = ", ".join([f"{first.label} {first.estimated(first.measured)}", *rest])
    say(console, f"Both models' outputs ({accuracy.task}): {alike}.")


def _print_latency(console: Console, latency: Latency) -> None:
    columns = ("batch", "dense\np50", "\np90", "\np99", "sparse\np50", "\np90", "\np99", "dense / sparse")
    table = make_table(f"Latency in ms, --provider {latency.requested}", *columns, numbers=columns)
    rows = {(s.role, s.at): s for s in latency.series}
    for ratio in latency.ratios:
        pair = (rows["dense", ratio.at], rows["sparse", ratio.at])
        numbers = [_milliseconds(v) for s in pair for v in (s.p50_ms, s.p90_ms, s.p99_ms)]
        interval = f"{ratio.speedup:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
        table.add_row(two_lines(ratio.at.replace(" of ", "\nof ")), *numbers, interval)
    console.print(table)
    placed = ", ".join(f"{count} nodes on {name}" for name, count in latency.providers.items())
    say(console, f"Really ran: {placed}.")
    if latency.note:
        say(console, latency.note)


def _milliseconds(value: float) -> str:
    """Three digits, and never more than five columns, so that a row fits into 80."""
    return f"{value:.3f}" if value < 1 else f"{value:.3g}" if value < 100 else f"{value:.0f}"
