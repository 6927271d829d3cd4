"""`snowsdeploy profile`: latency of ONNX files side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snowsdeploy_cli import options as o

Files = Annotated[list[Path], typer.Argument(help="ONNX files; ratios are against the first.")]
Batches = Annotated[list[str], typer.Option("--batch", metavar="N,N", help="Batch sizes; a list, or repeated.")]
Runs = Annotated[int, typer.Option("--runs", min=10, help="Timed calls of each file and batch size.")]
PatternText = Annotated[str, typer.Option("--pattern", help="Layers that hold it count as pruned.")]
Export = Annotated[Path | None, typer.Option("--export", help="Write the figures as JSON.")]
Trace = Annotated[Path | None, typer.Option("--trace", help="Write a Chrome trace of the last file.")]


def command(
    files: Files,
    *,
    provider: o.Provider = None,
    batch: Batches = ["1"],  # noqa: B006 - Typer copies it
    runs: Runs = 100,
    pattern: PatternText = "2:4",
    seed: o.Seed = None,
    export: Export = None,
    trace: Trace = None,
    quiet: o.Quiet = False,
) -> None:
    """Time ONNX files side by side, and show where the time goes and what sparsity could gain at most."""
    sizes = o.parse_options({"latency_batch": batch})["latency_batch"]

    from snowsdeploy.files import write_text_atomic
    from snowsdeploy.sparsity.pattern import Pattern
    from snowsdeploy.validation.probe import require_provider
    from snowsdeploy.validation.profile import profile_files
    from snowsdeploy_cli.console import make_console, quiet_onnxruntime
    from snowsdeploy_cli.progress import ConsoleObserver
    from snowsdeploy_cli.render import print_profile

    quiet_onnxruntime()
    require_provider(provider or "cpu")
    with ConsoleObserver(make_console(stderr=True), quiet=quiet) as observer:
        observer.stage("profile", f"{len(files)} files on {provider or 'cpu'}, {runs} calls each")
        found = profile_files(
            files,
            provider or "cpu",
            sizes,
            runs=runs,
            pattern=Pattern.parse(pattern),
            seed=seed or 0,
            trace=trace,
            progress=observer.advance,
        )
    if export:
        write_text_atomic(export, found.model_dump_json(indent=2) + "\n")
    print_profile(make_console(), found)
