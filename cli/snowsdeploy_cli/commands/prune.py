"""`snowsdeploy prune`: the pruning stage alone."""

from __future__ import annotations

from snowsdeploy_cli import options as o


def command(
    model: o.Model,
    *,
    out: o.Out = None,
    arch: o.Arch = None,
    model_arg: o.ModelArg = None,
    allow_pickle: o.AllowPickle = None,
    data: o.Data = None,
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
    config: o.Config = None,
    force: o.Force = None,
    resume: o.Resume = None,
    quiet: o.Quiet = False,
) -> None:
    """Load, prune and solve; leaves program.pt2, pruned.safetensors and prune.json in --out."""
    given = o.parse_options({k: v for k, v in locals().items() if k not in ("config", "quiet")})

    from snowsdeploy.config import RunConfig, build_config
    from snowsdeploy.pipeline import prune
    from snowsdeploy_cli.console import make_console, quiet_onnxruntime
    from snowsdeploy_cli.processes import joined, launch, process_number
    from snowsdeploy_cli.progress import ConsoleObserver
    from snowsdeploy_cli.render import print_pruning

    settings = build_config(RunConfig, given, config)
    quiet_onnxruntime()
    first = process_number() == 0
    with joined(settings.device), ConsoleObserver(make_console(stderr=True), quiet=quiet or not first) as observer:
        report = prune(settings, observer, launch())
    if first:
        print_pruning(make_console(), report, settings.out)
