"""`snowsdeploy schema`: what files may hold, for editors and other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from snowsdeploy.errors import UsageError

Name = Annotated[str, typer.Argument(help="What to describe.", metavar="settings|policy|report")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the reference page of all settings instead.")]


def command(name: Name, *, markdown: Markdown = False) -> None:
    """Print the JSON Schema of a settings file, of a policy file, or of a report."""
    from snowsdeploy.settings.reference import KINDS, json_schema, reference_page

    if name not in KINDS:
        raise UsageError("there is no such schema", seen=name, allowed=", ".join(KINDS), fix="name one of those")
    if markdown and name != "settings":
        raise UsageError(
            "--markdown is of settings", seen=name, allowed="settings", fix="leave --markdown out, or ask for settings"
        )
    typer.echo(reference_page() if markdown else json_schema(name), nl=False)
