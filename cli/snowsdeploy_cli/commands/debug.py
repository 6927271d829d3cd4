"""`snowsdeploy debug`: why parity or accuracy fails."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snowsdeploy_cli import options as o
from snowsdeploy_cli.commands.export import RunFolder

Precision = Annotated[str, typer.Option("--precision", metavar="fp32|fp16|int8", help="Which file of the run.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Calibration images.")]
Tolerance = Annotated[
    float | None,
    typer.Option("--tolerance", min=0.0, help="Relative error that is no divergence; the parity gate's."),
]
Json = Annotated[Path | None, typer.Option("--json", help="Write everything as JSON.")]
Items = Annotated[int | None, typer.Option("--data-items", min=1, help="Calibration images; all of the run's.")]
MaxDrop = Annotated[
    float | None, typer.Option("--max-drop", min=0.0, max=100.0, help="Points of top-1 that the suggestion may lose.")
]
Policy = Annotated[Path | None, typer.Option("--policy", help="Limits that the suggestion must pass, a TOML file.")]


def parity(
    run: RunFolder,
    *,
    precision: Precision = "fp32",
    provider: o.Provider = None,
    provider_option: o.ProviderOption = None,
    allow_fallback: o.AllowFallback = None,
    batch: Batch = 8,
    tolerance: Tolerance = None,
    json: Json = None,
    quiet: o.Quiet = False,
) -> None:
    """Find the first node of a file whose value leaves PyTorch's."""
    names = ("provider", "provider_option", "allow_fallback")
    given = o.parse_options({k: v for k, v in locals().items() if k in names})

    from snowsdeploy.config import ExportSettings, RuntimeSettings, build_config
    from snowsdeploy.files import write_text_atomic
    from snowsdeploy.pipeline.debug import debug_parity
    from snowsdeploy.validation.probe import require_provider
    from snowsdeploy_cli.console import make_console, quiet_onnxruntime
    from snowsdeploy_cli.progress import ConsoleObserver
    from snowsdeploy_cli.render import print_divergence

    (wanted,) = build_config(ExportSettings, {"precision": (precision,)}).precision
    runtime = build_config(RuntimeSettings, given)
    quiet_onnxruntime()
    require_provider(runtime)
    with ConsoleObserver(make_console(stderr=True), quiet=quiet) as observer:
        found = debug_parity(run, wanted, runtime, images=batch, observer=observer, tolerance=tolerance)
    if json:
        write_text_atomic(json, found.model_dump_json(indent=2) + "\n")
    print_divergence(make_console(), found)


def accuracy(
    run: RunFolder,
    *,
    data_items: Items = None,
    max_drop: MaxDrop = None,
    policy: Policy = None,
    json: Json = None,
    quiet: o.Quiet = False,
) -> None:
    """Find which layers' pruning costs most, and the fewest to keep dense."""
    from snowsdeploy.errors import UsageError
    from snowsdeploy.files import write_text_atomic
    from snowsdeploy.gate.policy import GatePolicy, load_policy
    from snowsdeploy.pipeline.debug import debug_accuracy
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.progress import ConsoleObserver
    from snowsdeploy_cli.render import print_accuracy_cost

    if policy and max_drop is not None:
        raise UsageError("--max-drop and --policy both say what must pass", fix="give one of them")
    limits = load_policy(policy) if policy else GatePolicy()
    if max_drop is not None:
        limits = GatePolicy(max_accuracy_drop=max_drop)
    with ConsoleObserver(make_console(stderr=True), quiet=quiet) as observer:
        found = debug_accuracy(run, data_items, limits, observer)
    if json:
        write_text_atomic(json, found.model_dump_json(indent=2) + "\n")
    print_accuracy_cost(make_console(), found)
