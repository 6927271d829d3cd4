"""`snowsdeploy inspect`: the layout of any file, layer by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from snowsdeploy_cli.arguments import AsJson, EngineLayers, EngineLog

File = Annotated[Path, typer.Argument(help="An .onnx file, a checkpoint or .safetensors.")]
PatternText = Annotated[str, typer.Option("--pattern", help="N:M to check.")]
Require = Annotated[list[str], typer.Option("--require", metavar="GLOB", help="Exit 4 unless these layers hold it.")]


def command(
    file: File,
    *,
    pattern: PatternText = "2:4",
    require: Require = [],  # noqa: B006 - Typer copies it
    as_json: AsJson = False,
    engine_log: EngineLog = None,
    engine_layers: EngineLayers = None,
) -> None:
    """Show where a file's weights hold the pattern that sparse tensor cores need."""
    from snowsdeploy.patterns.pattern import Pattern
    from snowsdeploy.stages.inspect import inspect_engine, inspect_file, unmet
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.outcome import GATE_FAILED
    from snowsdeploy_cli.render import print_evidence

    evidence = inspect_file(file, Pattern.parse(pattern))
    broken = unmet(evidence, require)
    engine = None
    if engine_log or engine_layers:
        evidence, engine = inspect_engine(evidence, engine_log, engine_layers)
    if as_json:
        content = evidence.model_dump(mode="json") | ({"engine": engine.model_dump(mode="json")} if engine else {})
        typer.echo(json.dumps(content, indent=2))
    else:
        print_evidence(make_console(), evidence, engine)
        for name in broken:
            typer.echo(f"not {pattern}: {name}")
    if broken:
        raise typer.Exit(GATE_FAILED)
