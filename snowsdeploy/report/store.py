"""Report <-> `report.json`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from snowsdeploy.errors import OutputError
from snowsdeploy.files import require_regular, write_text_atomic
from snowsdeploy.values import SCHEMA_VERSION, Report


def write_report(report: Report, path: Path) -> None:
    """Write JSON; atomic."""
    write_text_atomic(path, report.json_in(path.parent))


REPORT = "report.json"  # in a run directory


def read_report(path: Path) -> Report:
    """Read a report's JSON, or that of a run directory.

    Raises:
        OutputError: Missing, not a report, or of another schema version.
    """
    path = path / REPORT if path.is_dir() else path
    require_regular(path, "the report cannot be read", OutputError)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError("the report cannot be read", seen=f"{path}: {error}", allowed="a report.json") from error
    try:
        return Report.from_json_in(text, path.parent)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole file"
        raise OutputError(
            "the file is not a report that this version reads",
            seen=f"{path}: {place}: {first['msg']}",
            allowed=f"report.json of schema version {SCHEMA_VERSION}",
            fix="run prune-export or validate again",
        ) from error
