"""Command line, TOML file and Python arguments -> settings, or one clear error."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from snowsdeploy.errors import UsageError, cause
from snowsdeploy.files import reading, require_regular
from snowsdeploy.settings.base import Option, Settings, option_of, unknown_name
from snowsdeploy.settings.jobs import CompareJob, MainJob, ValidateJob
from snowsdeploy.settings.policy import GatePolicy, policy_of_table
from snowsdeploy.settings.profile import ProfileSettings

T = TypeVar("T", bound=Settings)

FILE_KINDS: tuple[type[Settings], ...] = (MainJob, ValidateJob, CompareJob, ProfileSettings)

# What a run's own config.toml holds beside settings.
POLICY_TABLE, RESOLVED_TABLE, VERSIONS_TABLE = "gate", "resolved", "versions"


@dataclass(frozen=True)
class SettingsFile:
    """What a TOML file says.

    Attributes:
        values: Settings by name.
        policy: The limits of its table `[gate]`; None without one.
        resolved: Its table `[resolved]`: what the effort and the solver of a run decided. It counts where neither is
            given above the file.
        versions: Those of its table `[versions]`, with which a run was made.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    resolved: Mapping[str, Any] = field(default_factory=dict)
    policy: GatePolicy | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


def read_settings(kind: type[T], given: Mapping[str, Any], file: SettingsFile | Path | None = None) -> T:
    """Lay given values over those of a TOML file, and validate.

    Args:
        kind: The settings class.
        given: Values by name; None means not given.
        file: A TOML file or its content; keys of other commands are ignored.

    Raises:
        UsageError: An unknown key, a value that is missing or not allowed; all of them are named.
    """
    content = read_file(file) if isinstance(file, Path) else file or SettingsFile()
    names = kind.ordered_fields()
    for name in given:
        if name not in names:
            raise unknown_name("there is no such setting", name, names)
    above = {k: v for k, v in given.items() if v is not None}
    decided = {} if above.keys() & {"effort", "solver"} or "solver" not in names else content.resolved
    values = {k: v for k, v in {**decided, **content.values}.items() if k in names} | above
    try:
        made = kind.model_validate(values)
    except ValidationError as error:
        raise _explain(error, list(names), kind) from error
    return made.with_decided(decided.keys() & set(names) - content.values.keys() - above.keys())


def known_keys() -> set[str]:
    """Every key that a TOML file may hold, its tables among them."""
    return {name for kind in FILE_KINDS for name in kind.model_fields} | {POLICY_TABLE, RESOLVED_TABLE, VERSIONS_TABLE}


def read_file(path: Path, option: str = "--config") -> SettingsFile:
    """Read a TOML file of settings.

    Raises:
        UsageError: It cannot be read, is not TOML, or has an unknown key.
    """
    values = read_toml(path, option)
    gate, tables = values.pop(POLICY_TABLE, None), {}
    for name in (RESOLVED_TABLE, VERSIONS_TABLE):
        tables[name] = values.pop(name, {})
        if not isinstance(tables[name], dict):
            raise UsageError(
                f"{option} {path}: {name} is not a table",
                seen=str(tables[name]),
                allowed=f"[{name}]",
                fix=f"write its settings as lines below [{name}]",
            )
    for key in (*values, *tables[RESOLVED_TABLE]):
        if key not in known_keys():
            raise unknown_name(f"{option} {path} has an unknown key", key, known_keys())
    if gate is not None and "policy" in values:
        raise UsageError(
            f"{option} has two policies",
            seen=f"{path}: [gate] and policy",
            fix="remove one of them",
            allowed="one of them",
        )
    policy = None if gate is None else policy_of_table(gate, f"{option} {path}")
    versions = {str(k): str(v) for k, v in tables[VERSIONS_TABLE].items()}
    return SettingsFile(values, tables[RESOLVED_TABLE], policy, versions)


def load_policy(path: Path) -> GatePolicy:
    """Read the table `[gate]` of a TOML file.

    Raises:
        UsageError: Unreadable, an unknown key, or a value out of range.
    """
    content = read_toml(path, "--policy")
    if not isinstance(content.get(POLICY_TABLE), dict):
        raise UsageError(
            "--policy has no table [gate]",
            seen=f"{path}: {', '.join(content) or 'empty'}",
            allowed="[gate]",
            fix="put the limits below a line [gate]",
        )
    for key in content:
        if key != POLICY_TABLE:
            raise unknown_name(f"--policy {path} has an unknown key", key, GatePolicy.model_fields)
    return policy_of_table(content[POLICY_TABLE], f"--policy {path}")


def read_toml(path: Path, option: str) -> dict[str, Any]:
    """A TOML file's content.

    Raises:
        UsageError: It cannot be read, or is not TOML.
    """
    require_regular(path, f"{option} cannot be read", UsageError)
    with reading(lambda error: _not_toml(path, option, error)):
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))


def _not_toml(path: Path, option: str, error: Exception) -> UsageError:
    if isinstance(error, OSError):
        return UsageError(
            f"{option} cannot be read",
            seen=f"{path}: {error.strerror}",
            fix="check the path",
            allowed="a TOML file that this user may read",
        )
    return UsageError(
        f"{option} is not valid TOML",
        seen=f"{path}: {cause(error)}",
        allowed="name = value, a line each; texts in quotes",
        fix="mend the line that the message names",
    )


def _explain(error: ValidationError, order: Sequence[str], kind: type[Settings]) -> UsageError:
    lacking = {str(e["loc"][0]) for e in error.errors() if e["type"] == "missing"}
    missing = [option_of(name) for name in order if name in lacking]
    wrong = _causes([e for e in error.errors() if e["type"] != "missing"])
    if not wrong:
        return UsageError(
            f"{', '.join(missing)} must be given",
            fix="as an option, or as a key of the --config file",
            seen="neither on the command line nor in a --config file",
            allowed="a value for each",
        )
    names = list(dict.fromkeys(option_of(str(e["loc"][0])) for e in wrong))
    rows = [(f"{option_of(str(e['loc'][0]))}: " if len(names) > 1 else "", e) for e in wrong]
    seen = dict.fromkeys(f"{name}{_text(e['input'])}" for name, e in rows)
    allowed = dict.fromkeys(f"{name}{_allowed(e, kind)}" for name, e in rows)
    fix = f"{', '.join(missing)} must be given as well" if missing else None
    what = f"{', '.join(names)} cannot have this value"
    return UsageError(what, seen="; ".join(seen), allowed="; ".join(allowed), fix=fix)


_ALLOWED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "byte_size": "a size such as 8GiB",
    "byte_size_unit": "a size such as 8GiB",
}


def _allowed(error: ErrorDetails, kind: type[Settings]) -> str:
    """What pydantic wanted, as one would say it."""
    if error["type"] == "string_pattern_mismatch":
        option = next((m for m in kind.model_fields[str(error["loc"][0])].metadata if isinstance(m, Option)), None)
        return "a text of another form" if option is None else option.metavar.replace("|", ", ")
    plain = _ALLOWED.get(error["type"])
    return plain or error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")


def _text(value: object) -> str:
    """A value as it was typed."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _causes(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Drop "list too short" errors that only follow from a rejected item."""
    others = {e["loc"][0] for e in errors if e["type"] != "too_short"}
    return [e for e in errors if e["type"] != "too_short" or e["loc"][0] not in others]
