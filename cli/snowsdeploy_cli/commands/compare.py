"""`snowsdeploy compare`: mask selectors and solvers side by side on one model."""

from __future__ import annotations

from typing import Annotated

import typer

from snowsdeploy_cli import options as o

Selectors = Annotated[str, typer.Option("--selectors", metavar="NAME,NAME", help="Which weights stay; a list.")]
Solvers = Annotated[str, typer.Option("--solvers", metavar="none,k0,snows", help="What repairs them; a list.")]


def command(
    model: o.Model,
    *,
    out: o.Out = None,
    selectors: Selectors = "magnitude,wanda,sparsegpt,exchange",
    solvers: Solvers = "none,k0,snows",
    arch: o.Arch = None,
    model_arg: o.ModelArg = None,
    allow_pickle: o.AllowPickle = None,
    data: o.Data = None,
    eval_data: o.EvalData = None,
    samples: o.Samples = None,
    seed: o.Seed = None,
    mean: o.Mean = None,
    std: o.Std = None,
    input_size: o.InputSize = None,
    interpolation: o.Interpolation = None,
    crop_pct: o.CropPct = None,
    pattern: o.PatternOption = None,
    threshold: o.Threshold = None,
    include: o.Include = None,
    exclude: o.Exclude = None,
    permute: o.Permute = None,
    effort: o.Effort = None,
    batch_size: o.BatchSize = None,
    device: o.Device = None,
    memory: o.Memory = None,
    activations: o.ActivationsOption = None,
    config: o.Config = None,
    quiet: o.Quiet = False,
) -> None:
    """Prune, export and measure a model with each selector under each solver; what was run before is not run again."""
    own = {"selectors", "solvers", "config", "quiet"}
    given = o.parse_options({k: v for k, v in locals().items() if k not in {*own, "own"}})

    from pathlib import Path

    from snowsdeploy.config import RunConfig, build_config
    from snowsdeploy.pipeline.compare import compare
    from snowsdeploy_cli.console import make_console, quiet_onnxruntime
    from snowsdeploy_cli.processes import require_one_process
    from snowsdeploy_cli.progress import ConsoleObserver
    from snowsdeploy_cli.render import print_compared_runs
    from snowsdeploy_exporters import OnnxExporter

    folder = Path(given.get("out") or "comparison")
    require_one_process("compare")
    quick = {"latency_batch": (1,), "latency_runs": 5}  # speed does not depend on which weights stay
    configs = {
        f"{selector}-{solver}": build_config(
            RunConfig,
            {**given, **quick, "selector": selector, "solver": solver, "out": folder / f"{selector}-{solver}"},
            config,
        )
        for selector in selectors.split(",")
        for solver in solvers.split(",")
    }
    quiet_onnxruntime()
    with ConsoleObserver(make_console(stderr=True), quiet=quiet) as observer:
        found = compare(folder, configs, OnnxExporter(), observer)
    print_compared_runs(make_console(), found)
    typer.echo(f"Written to {folder}: comparison.json, comparison.html, and a run directory for each row")
