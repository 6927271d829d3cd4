"""Dependence runs one way, and the library neither prints nor reads its surroundings."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LIBRARY = sorted(
    path
    for folder in ("snowsdeploy", "exporters/snowsdeploy_exporters")
    for path in (REPOSITORY / folder).rglob("*.py")
)
DISPLAY = "snowsdeploy/display.py"  # asks the terminal what it can show
FORBIDDEN = {"sys.argv", "sys.exit", "os.environ", "os.getenv", "os._exit"}


def test_import_contracts_hold():
    roots = (REPOSITORY, REPOSITORY / "cli", REPOSITORY / "exporters")
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_library_does_not_print_exit_or_read_its_surroundings(path):
    if path == REPOSITORY / DISPLAY:
        return
    allowed = {"sys.argv"} if path.name == "user_code.py" else set()  # it hides the options from the user's code
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "input", "exit", "quit"}, f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert f"{node.value.id}.{node.attr}" not in FORBIDDEN - allowed, f"line {node.lineno}"
