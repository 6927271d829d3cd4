"""Layers: which are pruned and why others are not, and what a file holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from snowsdeploy_cli.console import say
from snowsdeploy_cli.render.permutation import print_permutation
from snowsdeploy_cli.render.table import make_table

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.values import (
        EngineEvidence,
        ExportReport,
        LayerDecision,
        LayerSparsity,
        Package,
        PruneReport,
        SparsityEvidence,
    )

_NAMES = 4  # shown of those that share a reason


def print_pruning(console: Console, report: PruneReport, folder: Path) -> None:
    """What `prune` did."""
    say(console, f"{len(report.pruned)} layers pruned to {report.pattern} in {report.seconds:.0f} s")
    print_kept_dense(console, report.decisions)
    print_permutation(console, report.permutation)
    say(console, f"Written to {folder}; next: snowsdeploy export {folder}")


def print_kept_dense(console: Console, decisions: Sequence[LayerDecision]) -> None:
    """Why layers are not pruned, one line a reason."""
    groups: dict[str, list[str]] = defaultdict(list)
    for decision in decisions:
        if not decision.prunable:
            groups[decision.reason].append(decision.name)
    for reason, names in groups.items():
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        say(console, f"  dense, {reason}: {', '.join(names[:_NAMES])}{more}")


def print_files(console: Console, written: ExportReport) -> None:
    """Exported files."""
    pairs = [file for pair in written.pairs for file in (pair.dense, pair.sparse)]
    for artifact in (*pairs, *written.serving):
        say(console, f"{artifact.path}  {artifact.size_bytes / 2**20:.2f} MiB, opset {artifact.opset}")
    for package in written.packages:
        count = len(package.files)
        say(console, f"{package.folder}/  {count} {'file' if count == 1 else 'files'}")
    print_notes(console, written.packages)


def print_notes(console: Console, packages: Sequence[Package]) -> None:
    """What a user must know of the formats that were written."""
    for package in packages:
        for note in package.notes:
            say(console, f"  {package.format}: {note}")


def print_evidence(console: Console, evidence: SparsityEvidence, engine: EngineEvidence | None = None) -> None:
    """The layout of a file, layer by layer, and what an engine made of it."""
    columns = ("layer", "op", "shape", "zeros", "layout", *(("found", "chosen") if engine else ()))
    table = make_table(f"{evidence.file.name}: {evidence.pattern}", *columns)
    for row in evidence.layers:
        broken = row.note or f"{row.violations} of {row.groups} groups broken"
        layout = Text("valid", "green") if row.layout_valid else broken
        table.add_row(
            row.name, row.op, "x".join(map(str, row.shape)), f"{row.zeros:.0%}", layout, *_engine(row, engine)
        )
    console.print(table)
    valid = sum(row.layout_valid for row in evidence.layers)
    share = f"{evidence.coverage:.1%} of their weights"
    say(console, f"{valid} of {len(evidence.layers)} layers hold {evidence.pattern}: {share}")
    if engine is not None:
        print_engine(console, engine)


def print_engine(console: Console, engine: EngineEvidence) -> None:
    """What an engine made of the pattern, and what is not known of it."""
    for text in (engine.account, *engine.notes):
        say(console, text)


def _engine(row: LayerSparsity, engine: EngineEvidence | None) -> tuple[str, ...]:
    if engine is None:
        return ()
    return (row.found, row.chosen) if row.layout_valid else ("", "")
