"""Whether an earlier report is a baseline at all: of the same model, pattern, precision and evaluation items."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from snowsdeploy.errors import OutputError
from snowsdeploy.values import DataInfo, Report, SourceInfo

_SHOWN = 3  # names of layers in a message


def require_comparable(report: Report, baseline: Report) -> None:
    """Refuse a baseline that speaks of something else.

    A model that was trained anew is the same model: its architecture, layers, inputs and outputs are compared, and of
    files that differ in content their names.

    Args:
        report: What is judged.
        baseline: The earlier report.

    Raises:
        OutputError: It differs in what is compared first; everything that differs is named.
    """
    differences = [*_differences(report, baseline)]
    if differences:
        raise OutputError(
            "--baseline is of something else than the report",
            seen="; ".join(differences),
            allowed="a report of the same model, pattern and evaluation data, with a precision in common",
            fix="make a baseline with the same MODEL, --pattern, --precision and --eval-data",
        )


def _differences(new: Report, old: Report) -> Iterator[str]:
    yield from _sources(new.source, old.source)
    if new.signature != old.signature:
        yield f"the model {new.signature}, the baseline's {old.signature}"
    yield from _layers(new, old)
    if new.preprocessing != old.preprocessing:
        yield "images become the model's input in another way (size, mean, deviation or crop)"
    if new.prune.pattern != old.prune.pattern:
        yield f"pattern {new.prune.pattern}, the baseline's is {old.prune.pattern}"
    ours, theirs = ([variant.precision for variant in side.variants] for side in (new, old))
    if ours and theirs and not set(ours) & set(theirs):
        yield f"precision {', '.join(ours)}, the baseline's is {', '.join(theirs)}"
    for variant in new.variants:
        before = next((v for v in old.variants if v.precision == variant.precision), None)
        sides = [
            side.accuracy for side in (variant, before) if side and side.accuracy and not side.accuracy.calibration
        ]
        a, b = (sides[0].data, sides[-1].data) if len(sides) == 2 else (None, None)
        if a and b and not _same_items(a, b):
            yield f"evaluated on {a.items} items of {a.source}, the baseline on {b.items} others of {b.source}"
            return


def _sources(new: SourceInfo, old: SourceInfo) -> Iterator[str]:
    names = [PurePath(side.source).name for side in (new, old)]
    if new.arch != old.arch:
        yield f"architecture {new.arch or 'unknown'}, the baseline's is {old.arch or 'unknown'}"
    elif names[0] != names[1] and (new.sha256 is None or new.sha256 != old.sha256):
        yield f"model {new.source}, the baseline's is {old.source}"


def _layers(new: Report, old: Report) -> Iterator[str]:
    ours, theirs = ({(d.name, d.kind, d.shape) for d in side.prune.decisions} for side in (new, old))
    names = sorted({name for name, *_ in ours ^ theirs})
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield f"layers that the other has not, or of another shape: {', '.join(names[:_SHOWN])}{more}"


def _same_items(new: DataInfo, old: DataInfo) -> bool:
    """By the content of the files where both tell it, else by what identifies source, items and preprocessing."""
    if new.content is not None and old.content is not None:
        return (new.content, new.items) == (old.content, old.items)
    return new.fingerprint == old.fingerprint
