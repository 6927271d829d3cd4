"""Report <-> `report.json`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from snowsdeploy.errors import OutputError, cause
from snowsdeploy.files import reading, require_regular, write_text_atomic
from snowsdeploy.values import SCHEMA_VERSION, Report


def write_report(report: Report, path: Path) -> None:
    """Write JSON; atomic."""
    write_text_atomic(path, report.json_in(path.parent))


REPORT = "report.json"  # in a run directory


def read_report(path: Path, option: str = "") -> Report:
    """Read a report's JSON, or that of a run directory.

    Args:
        path: Either.
        option: By which it was given, for messages; empty for the report itself.

    Raises:
        OutputError: Missing, not a report, of another schema version, or one whose figures contradict one another.
    """
    path = path / REPORT if path.is_dir() else path
    what = f"{option} " if option else "the report "
    require_regular(path, f"{what}cannot be read", OutputError)
    with reading(lambda error: _unreadable(what, path, error)):
        text = path.read_text(encoding="utf-8-sig")
    try:
        found = Report.from_json_in(text, path.parent)
    except ValidationError as error:
        raise _refused(what, path, error.errors()[0], _fix(option)) from error
    if "schema_version" not in found.model_fields_set:
        seen = f"{path}: no schema version"
        raise OutputError(_other(what), seen=seen, allowed=f"schema version {SCHEMA_VERSION}", fix=_fix(option))
    return found


def _other(what: str) -> str:
    return f"{what.replace('the report', 'the file')}is not a report that this version reads"


def _fix(option: str) -> str:
    if option:
        return "make it anew with this version, or use the version that wrote it"
    return "run prune-export or validate again, and do not edit the file"


def _unreadable(what: str, path: Path, error: Exception) -> OutputError:
    return OutputError(
        f"{what}cannot be read", seen=f"{path}: {cause(error)}", allowed="a report.json", fix="check the path"
    )


def _refused(what: str, path: Path, error: ErrorDetails, fix: str) -> OutputError:
    place = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if place == "schema_version":
        seen = f"{path}: schema version {error['input']!r}"[:200]
        return OutputError(_other(what), seen=seen, allowed=f"schema version {SCHEMA_VERSION}", fix=fix)
    if error["type"] == "value_error":
        return OutputError(
            f"{what}contradicts itself",
            seen=f"{path}: {place}: {message}",
            allowed="figures that follow from one another, as they were measured",
            fix=fix,
        )
    if error["type"] == "missing":
        seen = f"{path}: no {place}"
        return OutputError(_other(what), seen=seen, allowed=f"all of schema version {SCHEMA_VERSION}", fix=fix)
    plain = isinstance(error["input"], str | int | float | None)
    value = f": {error['input']!r}"[:100] if plain and error["type"] != "json_invalid" else ""
    return OutputError(
        _other(what),
        seen=f"{path}: {place or 'the whole file'}{value}",
        allowed=f"{message} (report.json of schema version {SCHEMA_VERSION})",
        fix=fix,
    )
