"""Where everything is printed: results to standard output, progress and errors to standard error."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.errors import SnowsDeployError

PLAIN_WIDTH = 100


def make_console(*, stderr: bool = False) -> Console:
    """A rich console: coloured on a terminal, plain text elsewhere."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    plain = not stream.isatty() or bool(os.environ.get("CI"))
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Console(stderr=stderr, no_color=plain or None, width=width, highlight=False, soft_wrap=False)


def print_error(error: SnowsDeployError) -> None:
    """What is wrong, then the value seen, the values allowed and what to do, aligned."""
    lines = [f"error: {error.what}"]
    for label, text in error.parts():
        indent = f"  {label + ':':<9}"
        lines.append(textwrap.fill(text, 88, initial_indent=indent, subsequent_indent=" " * len(indent), break_long_words=False))
    print("\n".join(lines), file=sys.stderr)  # noqa: T201 - rich would read brackets in paths as markup
