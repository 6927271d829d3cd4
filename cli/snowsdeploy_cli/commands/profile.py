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
SparsityOff = Annotated[bool, typer.Option("--sparsity-off", help="Time each without sparse kernels too.")]
CudaGraph = Annotated[bool, typer.Option("--cuda-graph", help="Capture each as one CUDA graph.")]
Memory = Annotated[bool, typer.Option("--memory", help="Measure peak memory too, a process each.")]
Export = Annotated[Path | None, typer.Option("--export", help="Write the figures as JSON.")]
Trace = Annotated[Path | None, typer.Option("--trace", help="Write a Chrome trace of the last file.")]


def command(
    files: Files,
    *,
    provider: o.Provider = None,
    provider_option: o.ProviderOption = None,
    allow_fallback: o.AllowFallback = None,
    engine_cache: o.EngineCache = None,
    batch: Batches = ["1"],  # noqa: B006 - Typer copies it
    runs: Runs = 100,
    sparsity_off: SparsityOff = False,
    cuda_graph: CudaGraph = False,
    memory: Memory = False,
    pattern: PatternText = "2:4",
    seed: o.Seed = None,
    config: o.Config = None,
    export: Export = None,
    trace: Trace = None,
    quiet: o.Quiet = False,
) -> None:
    """Time ONNX files side by side, and show where the time goes and what sparsity could gain at most."""
    names = ("provider", "provider_option", "allow_fallback", "engine_cache")
    given = o.parse_options({k: v for k, v in locals().items() if k in names})
    sizes = o.parse_options({"latency_batch": batch})["latency_batch"]

    from snowsdeploy.config import RuntimeSettings, build_config
    from snowsdeploy.files import write_text_atomic
    from snowsdeploy.sparsity.pattern import Pattern
    from snowsdeploy.validation.probe import require_provider
    from snowsdeploy.validation.profile import contestants, profile_files
    from snowsdeploy_cli.console import make_console, quiet_onnxruntime
    from snowsdeploy_cli.progress import ConsoleObserver
    from snowsdeploy_cli.render import print_profile

    runtime = build_config(RuntimeSettings, given, config)
    timed = contestants(files, runtime, sparsity_off=sparsity_off, cuda_graph=cuda_graph)
    quiet_onnxruntime()
    require_provider(runtime)
    with ConsoleObserver(make_console(stderr=True), quiet=quiet) as observer:
        observer.stage("profile", f"{len(files)} files on {runtime.provider}, {runs} calls each")
        found = profile_files(
            timed,
            sizes,
            runs=runs,
            pattern=Pattern.parse(pattern),
            seed=seed or 0,
            memory=memory,
            trace=trace,
            progress=observer.advance,
        )
    if export:
        write_text_atomic(export, found.model_dump_json(indent=2) + "\n")
    print_profile(make_console(), found)
