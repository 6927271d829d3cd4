"""Where everything is printed: results to standard output, progress and errors to standard error."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.errors import SnowsDeployError

PLAIN_WIDTH = 80


def make_console(*, stderr: bool = False) -> Console:
    """A rich console: colour, boxes and bars on a terminal; plain text at 80 columns elsewhere and in CI.

    The variable COLUMNS overrides the width.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty() and not os.environ.get("CI"):
        return Console(stderr=stderr, highlight=False)
    width = int(columns) if (columns := os.environ.get("COLUMNS", "")).isdecimal() else PLAIN_WIDTH
    return Console(stderr=stderr, highlight=False, force_terminal=False, no_color=True, width=width)


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a sentence as it is (no markup), broken between words only, so that paths can be copied."""
    rest = "" if text[:1].isalnum() else " " * (len(text) - len(text.lstrip(" "))) + "  "
    console.print(_wrap(text, "", rest, console.width), style=style, markup=False, soft_wrap=True)


def print_error(error: SnowsDeployError) -> None:
    """What is wrong, then the value seen, the values allowed and what to do, aligned."""
    lines = [_wrap(f"error: {error.what}", "", "       ")]
    for label, text in error.parts():
        head = f"  {label + ':':<9}"
        lines.append(_wrap(text, head, " " * len(head)))
    typer.echo("\n".join(lines), err=True)  # not rich: it would read brackets in paths as markup


def _wrap(text: str, first: str, other: str, width: int = PLAIN_WIDTH) -> str:
    lines = textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=other, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


def quiet_onnxruntime() -> None:
    """Keep ONNX Runtime's own account of a provider that does not load off the terminal; ours says the same."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
