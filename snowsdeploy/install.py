"""What is installed: the base, which judges and measures, and the extra `prune`, which has PyTorch."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version

from snowsdeploy.errors import InstallError

# The module of each extra whose absence tells that the extra is not installed.
EXTRAS = {"prune": ("torch", "torchvision", "timm", "onnxscript", "safetensors"), "compile": ("tensorrt_rtx",)}


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
        try:
            import_module(module)
        except ImportError as error:
            raise InstallError(
                f"{what} needs the extra [{extra}], which is not installed",
                seen=f"{module}: {str(error).splitlines()[0][:160]}",
                allowed="gate, report, inspect of ONNX files, profile, doctor and schema run without it",
                fix=install_command(extra),
            ) from error
        if extra == "prune" and module == "torch":
            return  # the others are imported where they are needed: seconds that not every command pays


def install_command(extra: str) -> str:
    """The line that adds an extra to this installation: it names where the package came from, which is on no index."""
    return f"pip install '{_origin()}[{extra}]'"


def _origin() -> str:
    """The folder or wheel that this package was installed from, as pip recorded it; else the current clone."""
    try:
        text = distribution("snowsdeploy").read_text("direct_url.json")
    except PackageNotFoundError:
        text = None
    url = str(json.loads(text).get("url", "")) if text else ""
    return url.removeprefix("file://") if url.startswith("file://") else "."
