"""Settings -> JSON Schema, and the reference page of the documentation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from snowsdeploy.settings.base import Option, Settings, option_of
from snowsdeploy.settings.jobs import CompareJob, MainJob, ValidateJob
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.presets import DECIDED
from snowsdeploy.settings.profile import ProfileSettings
from snowsdeploy.settings.read import FILE_KINDS, POLICY_TABLE, RESOLVED_TABLE, VERSIONS_TABLE
from snowsdeploy.values import Report

Name = Literal["settings", "policy", "report"]
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(name: str) -> str:
    """The JSON Schema of a file for `--config`, of one for `--policy`, or of a report."""
    return json.dumps({"$schema": _DIALECT, **KINDS[name]()}, indent=2) + "\n"


def _file_schema() -> dict[str, Any]:
    """Every key of every command, none of them required: what is missing can be an option."""
    properties, definitions = dict[str, Any](), dict[str, Any]()
    kinds: tuple[type[Settings], ...] = (*FILE_KINDS, GatePolicy)
    for kind in kinds:
        schema = kind.model_json_schema()
        definitions |= schema.pop("$defs", {})
        if kind is GatePolicy:
            properties[POLICY_TABLE] = schema
        else:
            properties = {**schema["properties"], **properties}
    decided = {name: value for name, value in properties.items() if name in DECIDED}
    properties[RESOLVED_TABLE] = {"type": "object", "properties": decided, "additionalProperties": False}
    properties[VERSIONS_TABLE] = {"type": "object", "additionalProperties": {"type": "string"}}
    document = {"title": "Settings", "type": "object", "properties": properties, "additionalProperties": False}
    return {**document, "$defs": definitions}


def _policy_schema() -> dict[str, Any]:
    table = GatePolicy.model_json_schema()
    definitions = table.pop("$defs", {})
    document = {"title": "Policy", "type": "object", "required": [POLICY_TABLE], "additionalProperties": False}
    return {**document, "properties": {POLICY_TABLE: table}, "$defs": definitions}


KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "settings": _file_schema,
    "policy": _policy_schema,
    "report": partial(Report.model_json_schema, mode="serialization"),
}


def panel_of(field: FieldInfo) -> Option | None:
    """How a field appears on the command line; None for one that does not."""
    return next((m for m in field.metadata if isinstance(m, Option)), None)


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The values of a field that has some fixed ones."""
    kinds = [field.annotation, *get_args(field.annotation)]
    return tuple(str(v) for kind in kinds if get_origin(kind) is Literal for v in get_args(kind))


def default_text(field: FieldInfo) -> str:
    """A default as a user would type it; empty where there is none, or where it says nothing."""
    default: Any = field.default
    if field.is_required() or field.default_factory is not None or default is None or isinstance(default, bool):
        return ""
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def reference_page() -> str:
    """Markdown: every setting of every command, and every limit of a policy."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield (
        "Each setting is an option of the command line, a key of a TOML file (`--config`) and an argument of the "
        "Python functions. This page is written by `snowsdeploy schema settings --markdown`."
    )
    seen: set[str] = set()
    for title, kind in (
        ("prune-export", MainJob),
        ("validate", ValidateJob),
        ("compare", CompareJob),
        ("profile", ProfileSettings),
    ):
        panels: dict[str, list[str]] = {}
        for name, field in kind.ordered_fields().items():
            option = panel_of(field)
            if option is not None and (name not in seen or option.panel == "Profile"):
                panels.setdefault(option.panel, []).append(_row(name, field, option))
                seen.add(name)
        for panel, rows in panels.items():
            yield from ("", f"## {panel}" + ("" if title == "prune-export" else f" ({title})"), "")
            yield from ("| option | key | default | |", "|---|---|---|---|", *rows)
    yield from ("", "## Policy", "", 'The table `[gate]` of a policy file; `"off"` switches a rule off.', "")
    yield from ("| key | default | |", "|---|---|---|")
    for name, field in GatePolicy.model_fields.items():
        default = GatePolicy().model_dump(mode="json")[name]
        yield f"| `{name}` | {_toml(default)} | {_cell(field.description)} |"


def _row(name: str, field: FieldInfo, option: Option) -> str:
    flags = [option.flag or option_of(name), *([option.off] if option.off else [])]
    value = "" if _is_switch(field) or name == "model" else f" {option.metavar or '|'.join(choices_of(field))}"
    shown = " / ".join(f"`{flag}{value}`" for flag in flags)
    default = "required" if field.is_required() else f"`{text}`" if (text := default_text(field)) else ""
    return f"| {_cell(shown)} | `{name}` | {default} | {_cell(field.description)} |"


def _is_switch(field: FieldInfo) -> bool:
    return {kind for kind in (field.annotation, *get_args(field.annotation)) if kind is not NoneType} & {bool} != set()


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def _toml(value: object) -> str:
    if value is None:
        return "off"
    if isinstance(value, dict):
        return "`{ " + ", ".join(f"{k} = {v:g}" for k, v in value.items()) + " }`"
    return f"`{json.dumps(value)}`"
