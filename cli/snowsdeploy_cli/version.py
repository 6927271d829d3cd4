"""The installed version."""

from __future__ import annotations

from snowsdeploy.install import installed_version


def version_text() -> str:
    """For example `snowsdeploy 0.1.0`; says so when the code runs from a source tree that is not installed."""
    number = installed_version()
    return f"snowsdeploy {number}" if number != "0" else "snowsdeploy (source tree, not installed)"
