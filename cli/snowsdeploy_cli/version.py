"""The installed version."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def version_text() -> str:
    """For example `snowsdeploy 0.1.0`; says so when the code runs from a source tree that is not installed."""
    try:
        return f"snowsdeploy {version('snowsdeploy')}"
    except PackageNotFoundError:
        return "snowsdeploy (source tree, not installed)"
