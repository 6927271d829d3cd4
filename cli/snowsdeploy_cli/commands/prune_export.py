"""`snowsdeploy prune-export`: the main job."""

from __future__ import annotations

import sys

import typer

from snowsdeploy_cli import options as o


def command(
    model: o.Model,
    *,
    out: o.Out = None,
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
    selector: o.Selector = None,
    selector_arg: o.SelectorArg = None,
    threshold: o.Threshold = None,
    layer_cap: o.LayerCap = None,
    mask_steps: o.MaskSteps = None,
    labels: o.Labels = None,
    include: o.Include = None,
    exclude: o.Exclude = None,
    permute: o.Permute = None,
    permute_score: o.PermuteScore = None,
    effort: o.Effort = None,
    solver: o.Solver = None,
    held_back: o.HeldBack = None,
    horizon: o.Horizon = None,
    joint: o.Joint = None,
    solve_layers: o.SolveLayers = None,
    targets: o.Targets = None,
    sensitivity: o.Sensitivity = None,
    curvature: o.Curvature = None,
    preconditioner: o.Preconditioner = None,
    newton_steps: o.NewtonSteps = None,
    cg_steps: o.CgSteps = None,
    curvature_samples: o.CurvatureSamples = None,
    products: o.Products = None,
    compile_products: o.CompileProducts = None,
    variables: o.Variables = None,
    reestimate_norms: o.ReestimateNorms = None,
    final_steps: o.FinalSteps = None,
    batch_size: o.BatchSize = None,
    device: o.Device = None,
    memory: o.Memory = None,
    activations: o.ActivationsOption = None,
    opset: o.Opset = None,
    precision: o.Precision = None,
    keep_fp32: o.KeepFp32 = None,
    format: o.Format = None,  # noqa: A002 - the option's name
    uint8_input: o.Uint8Input = None,
    softmax: o.Softmax = None,
    top_k: o.TopK = None,
    provider: o.Provider = None,
    provider_option: o.ProviderOption = None,
    allow_fallback: o.AllowFallback = None,
    engine_cache: o.EngineCache = None,
    compile_for: o.CompileFor = None,
    eval_batch: o.EvalBatch = None,
    latency_batch: o.LatencyBatch = None,
    latency_runs: o.LatencyRuns = None,
    policy: o.Policy = None,
    keep_dense_until_gate: o.KeepDense = None,
    config: o.Config = None,
    force: o.Force = None,
    resume: o.Resume = None,
    quiet: o.Quiet = False,
) -> None:
    """Load, prune, solve, export, validate, judge, report: the main job."""
    given = o.parse_options({k: v for k, v in locals().items() if k not in ("config", "quiet")})

    from snowsdeploy.config import RunConfig, build_config
    from snowsdeploy.pipeline import prune_export
    from snowsdeploy_cli.console import make_console, quiet_onnxruntime
    from snowsdeploy_cli.outcome import exit_code
    from snowsdeploy_cli.processes import joined, launch, process_number
    from snowsdeploy_cli.progress import ConsoleObserver
    from snowsdeploy_cli.render import print_summary
    from snowsdeploy_exporters import FORMATS, OnnxExporter

    settings = build_config(RunConfig, given, config)
    quiet_onnxruntime()
    quiet = quiet or process_number() > 0
    with joined(settings.device), ConsoleObserver(make_console(stderr=True), quiet=quiet) as observer:
        exporter, command_line = OnnxExporter(settings.opset, settings.keep_fp32), o.command_line(sys.argv[1:])
        report = prune_export(settings, exporter, observer, command_line, FORMATS, launch=launch())
    if report is not None:
        print_summary(make_console(), report, settings.out)
        raise typer.Exit(exit_code(report.verdict))
