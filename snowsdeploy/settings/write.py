"""Settings -> the TOML file that repeats a run."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from snowsdeploy.plain_text import encodable
from snowsdeploy.settings.base import Settings
from snowsdeploy.settings.policy import OFF, GatePolicy
from snowsdeploy.settings.presets import DECIDED
from snowsdeploy.settings.read import POLICY_TABLE, RESOLVED_TABLE, VERSIONS_TABLE

# Where a run's results go and how it was started, not what it does; the policy and what engines say are not settings.
_OF_THE_CALL = {"out", "force", "resume", "policy", "engine_log", "engine_layers"}
_SOURCES, _PAIRS = ("model", "data", "eval_data"), ("model_arg", "selector_arg")
_IN_MEMORY = re.compile(r"<.* in memory>")
_REPEAT = "# What this run was made with. To repeat it: snowsdeploy prune-export --config THIS_FILE --out FOLDER\n\n"
_PARTLY = "# What this run was made with, but for what was a Python object, which has to be given again.\n\n"


def in_memory(value: object) -> str:
    """What stands for a Python object where settings want a text."""
    return f"<{type(value).__name__} in memory>"


@dataclass(frozen=True)
class Effective:
    """The settings that say what a run does, as TOML has them; paths that exist are absolute.

    Attributes:
        values: What was given, and defaults.
        resolved: What the effort and the solver decided.
        names: Of all settings of the stage, with a value or without.
    """

    values: Mapping[str, Any]
    resolved: Mapping[str, Any]
    names: frozenset[str]

    def over(self, values: Mapping[str, Any], resolved: Mapping[str, Any]) -> Effective:
        """Laid over those of other stages."""
        below = [{k: v for k, v in table.items() if k not in self.names} for table in (values, resolved)]
        return Effective({**below[0], **self.values}, {**below[1], **self.resolved}, self.names)


def effective(settings: Settings) -> Effective:
    """The settings of a run, resolved, without what cannot be written: Python objects."""
    names = [name for name in type(settings).model_fields if name not in _OF_THE_CALL]
    plain = settings.model_dump(mode="json", include=set(names) - set(_PAIRS))
    values = {name: plain.get(name) for name in names}
    for name in _SOURCES:
        text = values.get(name)
        if isinstance(text, str):
            values[name] = None if _IN_MEMORY.fullmatch(text) else _absolute(text)
    for name in _PAIRS:  # of any Python literal, which TOML has not
        pairs = getattr(settings, name, {})
        values[name] = [f"{key}={value!r}" for key, value in pairs.items() if _is_literal(value)]
    for name in names:
        path = getattr(settings, name)
        if isinstance(path, Path):
            values[name] = str(path.absolute())
    values = {name: value for name, value in values.items() if value is not None and value not in ({}, [])}
    decided = {name for name in DECIDED if name in values and name not in settings.given}
    return Effective(
        {name: value for name, value in values.items() if name not in decided},
        {name: values[name] for name in names if name in decided},
        frozenset(type(settings).model_fields),
    )


def config_toml(settings: Effective, policy: GatePolicy, versions: Mapping[str, str]) -> str:
    """A TOML file that `--config` takes.

    Args:
        settings: From `effective`.
        policy: The limits; those that nobody gave are left out, for what a file names must be judged.
        versions: With which the run is made; for people, and for a warning where they differ.
    """
    plain = {k: v for k, v in settings.values.items() if not isinstance(v, dict)}
    tables = {k: v for k, v in settings.values.items() if isinstance(v, dict)}
    limits = {k: OFF if v is None else v for k, v in policy.model_dump(mode="json", exclude_unset=True).items()}
    resolved = {RESOLVED_TABLE: dict(settings.resolved)} if settings.resolved else {}
    document: dict[str, Any] = {**plain, **tables, **resolved, POLICY_TABLE: limits, VERSIONS_TABLE: dict(versions)}
    head = _REPEAT if {"model", "data"} <= settings.values.keys() else _PARTLY
    return head + tomli_w.dumps(encodable(document))


def _is_literal(value: object) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError):
        return False


def _absolute(text: str) -> str:
    """A file or folder, with or without a slice behind it, by its absolute path; any other text as it is."""
    for stem, rest in ((text, ""), (text.rpartition("[")[0], text[text.rfind("[") :])):
        if stem and Path(stem).exists():
            return f"{Path(stem).resolve()}{rest}"
    return text
