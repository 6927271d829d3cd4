"""Settings -> the TOML file that repeats a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from snowsdeploy.settings.base import Settings
from snowsdeploy.settings.policy import OFF, GatePolicy
from snowsdeploy.settings.read import POLICY_TABLE, VERSIONS_TABLE

# Where a run's results go and how it was started, not what it does; the policy and what engines say are not settings.
_OF_THE_CALL = {"out", "force", "resume", "policy", "engine_log", "engine_layers"}
_HEAD = "# What this run was made with. To repeat it: snowsdeploy prune-export --config THIS_FILE --out FOLDER\n\n"


def effective_values(settings: Settings) -> dict[str, Any]:
    """The settings that say what a run does, as TOML has them; paths that exist are absolute."""
    values = {k: v for k, v in settings.model_dump(mode="json").items() if k not in _OF_THE_CALL and v is not None}
    for name in ("model", "data", "eval_data"):
        if isinstance(values.get(name), str):
            values[name] = _absolute(values[name])
    for name in ("model_arg", "selector_arg"):  # of any Python literal, which TOML has not
        if isinstance(values.get(name), dict):
            values[name] = [f"{key}={value!r}" for key, value in values[name].items()]
    return {k: v for k, v in values.items() if v not in ({}, [])}


def config_toml(values: Mapping[str, Any], policy: GatePolicy, versions: Mapping[str, str]) -> str:
    """A TOML file that `--config` takes.

    Args:
        values: From `effective_values`.
        policy: The effective limits.
        versions: With which the run is made; for people, and for a warning where they differ.
    """
    plain = {k: v for k, v in values.items() if not isinstance(v, dict)}
    tables = {k: v for k, v in values.items() if isinstance(v, dict)}
    limits = {k: OFF if v is None else v for k, v in policy.model_dump(mode="json").items()}
    document: dict[str, Any] = {**plain, **tables, POLICY_TABLE: limits, VERSIONS_TABLE: dict(versions)}
    return _HEAD + tomli_w.dumps(document)


def _absolute(text: str) -> str:
    """A file or folder, with or without a slice behind it, by its absolute path; any other text as it is."""
    for stem, rest in ((text, ""), (text.rpartition("[")[0], text[text.rfind("[") :])):
        if stem and Path(stem).exists():
            return f"{Path(stem).resolve()}{rest}"
    return text
