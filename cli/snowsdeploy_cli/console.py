"""Errors on the terminal, and ONNX Runtime's messages off it; results go to standard output, all else to error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from snowsdeploy.display import make_console, say, wrap
from snowsdeploy.plain_text import plain, plain_lines

if TYPE_CHECKING:
    from snowsdeploy.errors import SnowsDeployError

__all__ = ["make_console", "print_error", "quiet_onnxruntime", "say"]


def print_error(error: SnowsDeployError) -> None:
    """What is wrong, then the value seen, the values allowed and what to do, aligned."""
    lines = [wrap(plain(f"error: {error.what}"), "", "       ")]
    for label, text in error.parts():
        head = f"  {label + ':':<9}"
        lines.append(wrap(plain(text), head, " " * len(head)))
    typer.echo(plain_lines("\n".join(lines)), err=True)  # not rich: it would read brackets in paths as markup


def quiet_onnxruntime() -> None:
    """Keep ONNX Runtime's own account of a provider that does not load off the terminal; ours says the same."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
