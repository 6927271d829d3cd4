"""What is installed: the base, which judges and measures, and the extra `prune`, which has PyTorch."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from urllib.parse import unquote

from snowsdeploy.errors import InstallError

# The modules of each extra that commands need.
EXTRAS = {"prune": ("torch", "torchvision", "timm", "onnxscript", "safetensors")}
_BROKEN = {"torch"}  # imported to see whether it works: a CUDA library that is missing shows only then


def installed_version() -> str:
    """The version of this package; `0` for a source tree that is not installed."""
    try:
        return version("snowsdeploy")
    except PackageNotFoundError:
        return "0"


def require_extra(extra: str, what: str) -> None:
    """Refuse what needs an extra that is not installed.

    Args:
        extra: A key of `EXTRAS`.
        what: What needs it, as the user would say it.

    Raises:
        InstallError: A module of the extra is missing; the message has the one command that installs it.
    """
    for module in EXTRAS[extra]:
        problem = _problem_of(module)
        if problem:
            raise InstallError(
                f"{what} needs the extra [{extra}], which is not installed",
                seen=f"{module}: {problem}",
                allowed="gate, report, inspect of ONNX files, profile, doctor and schema run without it",
                fix=install_command(extra),
            )


def _problem_of(module: str) -> str | None:
    try:
        if module in _BROKEN:
            import_module(module)
        elif find_spec(module) is None:
            return f"No module named {module!r}"
    except (ImportError, ValueError) as error:  # the second where a test has put None in its place
        return next(iter(str(error).splitlines()), type(error).__name__)[:160]
    return None


def install_command(extra: str) -> str:
    """The line that adds an extra to this installation: it names where the package came from, which is on no index."""
    try:
        text = distribution("snowsdeploy").read_text("direct_url.json")  # as pip recorded it
    except PackageNotFoundError:
        text = None
    origin = json.loads(text) if text else {}
    url = str(origin.get("url", ""))
    if url.startswith("file://"):
        return f"pip install '{unquote(url.removeprefix('file://'))}[{extra}]'"
    if url:
        system = origin.get("vcs_info", {}).get("vcs")
        return f"pip install 'snowsdeploy[{extra}] @ {f'{system}+' if system else ''}{url}'"
    return f"pip install '.[{extra}]'"
