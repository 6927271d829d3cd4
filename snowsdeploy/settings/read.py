"""Command line, TOML file and Python arguments -> settings, or one clear error."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from snowsdeploy.errors import UsageError
from snowsdeploy.settings.base import Settings, option_of
from snowsdeploy.settings.jobs import CompareJob, MainJob, ValidateJob
from snowsdeploy.settings.policy import GatePolicy, policy_of_table
from snowsdeploy.settings.profile import ProfileSettings

T = TypeVar("T", bound=Settings)

POLICY_TABLE, VERSIONS_TABLE = "gate", "versions"  # what a run's own config.toml holds beside settings


@dataclass(frozen=True)
class SettingsFile:
    """What a TOML file says.

    Attributes:
        values: Settings by name.
        policy: The limits of its table `[gate]`; None without one.
        versions: Those of its table `[versions]`, with which a run was made.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
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
    unknown = [name for name in given if name not in kind.model_fields]
    if unknown:
        raise _unknown("there is no such setting", unknown[0], kind.model_fields)
    values = {k: v for k, v in content.values.items() if k in kind.model_fields}
    values |= {k: v for k, v in given.items() if v is not None}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _explain(error, list(kind.ordered_fields())) from error


def known_keys() -> set[str]:
    """Every key that a TOML file may hold."""
    return {name for kind in (MainJob, ValidateJob, CompareJob, ProfileSettings) for name in kind.model_fields}


def read_file(path: Path, option: str = "--config") -> SettingsFile:
    """Read a TOML file of settings.

    Raises:
        UsageError: It cannot be read, is not TOML, or has an unknown key.
    """
    values = read_toml(path, option)
    gate, versions = values.pop(POLICY_TABLE, None), values.pop(VERSIONS_TABLE, {})
    for key in values:
        if key not in known_keys():
            raise _unknown(f"{option} {path} has an unknown key", key, known_keys())
    if gate is not None and "policy" in values:
        raise UsageError(f"{option} has two policies", seen=f"{path}: [gate] and policy", fix="remove one of them")
    policy = None if gate is None else policy_of_table(gate, f"{option} {path}")
    return SettingsFile(values, policy, {str(k): str(v) for k, v in dict(versions).items()})


def load_policy(path: Path) -> GatePolicy:
    """Read the table `[gate]` of a TOML file.

    Raises:
        UsageError: Unreadable, an unknown key, or a value out of range.
    """
    content = read_toml(path, "--policy")
    if not isinstance(content.get(POLICY_TABLE), dict):
        raise UsageError(
            "--policy has no table [gate]", seen=f"{path}: {', '.join(content) or 'empty'}", allowed="[gate]"
        )
    for key in content:
        if key != POLICY_TABLE:
            raise _unknown(f"--policy {path} has an unknown key", key, set(GatePolicy.model_fields))
    return policy_of_table(content[POLICY_TABLE], f"--policy {path}")


def read_toml(path: Path, option: str) -> dict[str, Any]:
    """A TOML file's content.

    Raises:
        UsageError: It cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{option} cannot be read", seen=f"{path}: {error.strerror}", fix="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{option} is not valid TOML", seen=f"{path}: {error}") from error


def _unknown(what: str, key: str, known: Mapping[str, Any] | set[str]) -> UsageError:
    close = difflib.get_close_matches(key, list(known), 1)
    return UsageError(
        what, seen=key, allowed=", ".join(sorted(known)), fix=f"did you mean {close[0]}?" if close else "remove it"
    )


def _explain(error: ValidationError, order: Sequence[str]) -> UsageError:
    lacking = {str(e["loc"][0]) for e in error.errors() if e["type"] == "missing"}
    missing = [option_of(name) for name in order if name in lacking]
    wrong = _causes([e for e in error.errors() if e["type"] != "missing"])
    if not wrong:
        return UsageError(f"{', '.join(missing)} must be given", fix="as an option, or as a key of the --config file")
    names = list(dict.fromkeys(option_of(str(e["loc"][0])) for e in wrong))
    seen = dict.fromkeys(_text(e["input"]) for e in wrong)
    allowed = dict.fromkeys(e["msg"].removeprefix("Value error, ").removeprefix("Input should be ") for e in wrong)
    fix = f"{', '.join(missing)} must be given as well" if missing else None
    what = f"{', '.join(names)} cannot have this value"
    return UsageError(what, seen="; ".join(seen), allowed="; ".join(allowed), fix=fix)


def _text(value: object) -> str:
    """A value as it was typed."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _causes(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Drop "list too short" errors that only follow from a rejected item."""
    others = {e["loc"][0] for e in errors if e["type"] != "too_short"}
    return [e for e in errors if e["type"] != "too_short" or e["loc"][0] not in others]
