"""`snowsdeploy inspect`: the layout of any file, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snowsdeploy_cli.commands.gate import AsJson

File = Annotated[Path, typer.Argument(help="An .onnx file, a checkpoint or .safetensors.")]
PatternText = Annotated[str, typer.Option("--pattern", help="N:M to check.")]
Require = Annotated[list[str], typer.Option("--require", metavar="GLOB", help="Exit 4 unless these layers hold it.")]


def command(file: File, pattern: PatternText = "2:4", require: Require = [], as_json: AsJson = False) -> None:  # noqa: B006 - Typer copies it
    """Show where a file's weights hold the pattern that sparse tensor cores need."""
    from snowsdeploy.inspection import inspect_file, unmet
    from snowsdeploy.sparsity.pattern import Pattern
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.outcome import GATE_FAILED
    from snowsdeploy_cli.render import print_evidence

    evidence = inspect_file(file, Pattern.parse(pattern))
    broken = unmet(evidence, require)
    if as_json:
        typer.echo(evidence.model_dump_json(indent=2))
    else:
        print_evidence(make_console(), evidence)
        for name in broken:
            typer.echo(f"not {pattern}: {name}")
    if broken:
        raise typer.Exit(GATE_FAILED)
