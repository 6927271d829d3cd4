"""Whether a report speaks of the ONNX files that are there: their digests, and the layout, read again from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from snowsdeploy.errors import OutputError, cause
from snowsdeploy.files import reading, require_regular, sha256_of
from snowsdeploy.layout.onnx_layout import inspect_onnx
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.values import LayerSparsity, OnnxArtifact, Report, RuleResult, SparsityEvidence, Variant

_LIMIT = "digests and layout as in the report"
_SHOWN = 5  # names in a reason
_UNREADABLE = "a file of the report cannot be read"


def verify_files(report: Report, folder: Path | None = None) -> tuple[RuleResult, ...]:
    """Read the files of a report again; a row for each precision, and one for files with ends in the graph.

    A row fails where a file is missing, is another than the report says, or has another layout: an edited report
    cannot stand for another file.

    Args:
        report: What speaks of them.
        folder: Where they lie, by their names; where the report says, without it.

    Raises:
        OutputError: A file is there and cannot be read.
        SourceError: A file has the digest of the report and is no ONNX file that can be read.
        LayoutError: Its layer names are damaged.
    """
    rows = []
    for variant in report.variants:
        wrong = [text for file in (variant.dense, variant.sparse) for text in _differences(file, folder)]
        wrong = wrong or list(_layout_differences(variant, report, folder))
        rule = "files" if len(report.variants) == 1 else f"files, {variant.precision}"
        rows.append(_row(rule, 2, wrong))
    if report.serving:
        wrong = [text for file in report.serving for text in _differences(file, folder)]
        rows.append(_row("files, serving", len(report.serving), wrong))
    return tuple(rows)


def _row(rule: str, count: int, wrong: list[str]) -> RuleResult:
    if not wrong:
        return RuleResult(rule=rule, measured=f"{count} files read", limit=_LIMIT, verdict="pass")
    return RuleResult(rule=rule, measured="not those files", limit=_LIMIT, verdict="fail", reason="; ".join(wrong))


def _place(file: OnnxArtifact, folder: Path | None) -> Path:
    return file.path if folder is None else folder / file.path.name


def _unreadable(path: Path, error: Exception) -> OutputError:
    return OutputError(
        _UNREADABLE, seen=f"{path}: {cause(error)}", allowed="the file that was exported", fix="check its permissions"
    )


def _differences(file: OnnxArtifact, folder: Path | None) -> Iterator[str]:
    path = _place(file, folder)
    require_regular(path, _UNREADABLE, OutputError)
    if not path.exists():
        yield f"{path} is missing: pass --files with the folder where it lies"
        return
    with reading(lambda error: _unreadable(path, error)):
        digest = sha256_of(path)
        size = path.stat().st_size
    if digest != file.sha256:
        yield f"{path} has sha256 {digest}, the report says {file.sha256}"
    elif size != file.size_bytes:
        yield f"{path} has {size} bytes, the report says {file.size_bytes}"


def _layout_differences(variant: Variant, report: Report, folder: Path | None) -> Iterator[str]:
    """What the checker finds in the sparse file, against what the report says that it found."""
    if variant.sparsity is None:
        return
    path = _place(variant.sparse, folder)
    read = inspect_onnx(path, Pattern.parse(report.prune.pattern), report.prune.sparsity)
    if read.sha256 != variant.sparse.sha256:
        yield f"{path} was replaced while it was read"
    ours, theirs = _layers(read), _layers(variant.sparsity)
    if names := sorted({row[0] for row in (ours - theirs) + (theirs - ours)}):
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield f"the layout in {path} is another than the report's: {', '.join(names[:_SHOWN])}{more}"


def _layers(evidence: SparsityEvidence) -> Counter[tuple[str, ...]]:
    """Each use of a weight by what the file alone says of it."""
    return Counter(map(_facts, evidence.layers))


def _facts(row: LayerSparsity) -> tuple[str, ...]:
    counts = (row.shape, row.axis, row.nonzeros, row.groups, row.violations)
    return (row.name, row.tensor, row.op, *map(str, counts))
