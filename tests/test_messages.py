"""Every refusal says what is wrong, what was seen, what is allowed and what to try."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for root in ("snowsdeploy", "exporters", "cli") for path in (ROOT / root).rglob("*.py"))
PARTS = ("seen", "allowed", "fix")

# Files with refusals that lack a part; a file that lacks none any more must leave this list.
NOT_YET = {
    "cli/snowsdeploy_cli/commands/debug.py",
    "cli/snowsdeploy_cli/commands/schema.py",
    "cli/snowsdeploy_cli/outcome.py",
    "cli/snowsdeploy_cli/processes.py",
    "snowsdeploy/settings/read.py",
    "snowsdeploy/tasks/user_metric.py",
    "snowsdeploy/user_code.py",
}


def trees() -> dict[str, ast.Module]:
    """Every file of the library, the exporters and the command line, by its path."""
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def error_classes(modules: dict[str, ast.Module]) -> set[str]:
    """Names of `SnowsDeployError` and all that derive from it."""
    classes = [node for tree in modules.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names, before = {"SnowsDeployError"}, 0
    while len(names) > before:
        before = len(names)
        names |= {c.name for c in classes if any(isinstance(base, ast.Name) and base.id in names for base in c.bases)}
    return names


def constructions(tree: ast.AST, classes: set[str]) -> Iterator[ast.Call]:
    """Calls of an error's class, and of a parameter that stands for one."""
    yield from _calls(tree, classes)
    types = {f"type[{name}]" for name in classes}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
            yield from _calls(
                function, {a.arg for a in arguments if a.annotation and ast.unparse(a.annotation) in types}
            )


def _calls(tree: ast.AST, names: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        if isinstance(node, ast.Call) and name in names:
            yield node


def lacking(call: ast.Call) -> list[str]:
    """The parts that a construction leaves out, or may give as None or nothing."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    return [part for part in PARTS if part not in given or _may_be_empty(given[part])]


def _may_be_empty(value: ast.expr) -> bool:
    if isinstance(value, ast.IfExp):
        return _may_be_empty(value.body) or _may_be_empty(value.orelse)
    return isinstance(value, ast.Constant) and value.value in (None, "")


MODULES = trees()
CLASSES = error_classes(MODULES)
REFUSALS = {path: list(constructions(tree, CLASSES)) for path, tree in MODULES.items()}


def test_refusals_are_found() -> None:
    assert {"UsageError", "OutputError", "UserCodeError"} <= CLASSES
    assert sum(map(len, REFUSALS.values())) > 250
    assert REFUSALS["snowsdeploy/files.py"]  # among them those of a class that comes in as an argument


@pytest.mark.parametrize("path", [path for path, calls in REFUSALS.items() if calls and path not in NOT_YET])
def test_a_refusal_has_all_its_parts(path: str) -> None:
    short = [f"{path}:{call.lineno} lacks {', '.join(parts)}" for call in REFUSALS[path] if (parts := lacking(call))]
    assert not short


@pytest.mark.parametrize("path", sorted(NOT_YET))
def test_what_is_not_done_yet_is_not_done(path: str) -> None:
    assert any(map(lacking, REFUSALS[path])), f"{path} is complete: take it out of NOT_YET"


@pytest.mark.parametrize("path", [path for path, calls in REFUSALS.items() if calls])
def test_what_to_try_is_more_than_what_is_allowed(path: str) -> None:
    for call in REFUSALS[path]:
        given = {keyword.arg: ast.dump(keyword.value) for keyword in call.keywords}
        assert given.get("fix") is None or given["fix"] != given.get("allowed"), f"{path}:{call.lineno}"


@pytest.mark.parametrize("path", [path for path, calls in REFUSALS.items() if calls])
def test_the_first_sentence_has_no_full_stop(path: str) -> None:
    for call in REFUSALS[path]:
        texts = [part for arg in call.args[:1] for part in ast.walk(arg) if isinstance(part, ast.Constant)]
        assert not texts or not str(texts[-1].value).endswith("."), f"{path}:{call.lineno}"
