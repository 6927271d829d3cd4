"""`snowsdeploy debug`: why parity or accuracy fails."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from snowsdeploy.settings.runtime import RuntimeSettings
from snowsdeploy.values import Precision as PrecisionName
from snowsdeploy_cli.arguments import MovedData, PolicyFile, RunFolder, WriteJson
from snowsdeploy_cli.session import observed, require_prune
from snowsdeploy_cli.signature import Quiet, Typed, options_of

Precision = Annotated[
    str, typer.Option("--precision", metavar="|".join(get_args(PrecisionName)), help="Which file of the run.")
]
Batch = Annotated[int, typer.Option("--batch", min=1, help="How many calibration images to look at.", metavar="N")]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        min=0.0,
        help="Largest relative error that is no divergence; without it the limit of the parity gate.",
        metavar="E",
    ),
]
Items = Annotated[
    int | None,
    typer.Option(
        "--data-items", min=1, help="How many of the run's calibration images to use; without it all.", metavar="N"
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        min=0.0,
        max=100.0,
        help="What the suggestion may lose of the metric, such as points of top-1.",
        metavar="POINTS",
    ),
]


@options_of(RuntimeSettings, without=("engine_cache",), config=False)
def parity(
    typed: Typed,
    run: RunFolder,
    *,
    precision: Precision = "fp32",
    batch: Batch = 8,
    data: MovedData = None,
    tolerance: Tolerance = None,
    json: WriteJson = None,
    quiet: Quiet = False,
) -> None:
    """Find the first node of a file whose value leaves PyTorch's."""
    from snowsdeploy.settings.export import ExportSettings
    from snowsdeploy.settings.read import read_settings

    (wanted,) = read_settings(ExportSettings, {"precision": (precision,)}).precision
    runtime = typed.settings(RuntimeSettings)
    require_prune("debug parity")
    from snowsdeploy.files import write_text_atomic
    from snowsdeploy.runtime.probe import require_provider
    from snowsdeploy.stages.debug import run_debug_parity
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.render import print_divergence

    with observed(quiet=quiet) as observer:
        require_provider(runtime)
        divergence = run_debug_parity(
            run, wanted, runtime, images=batch, observer=observer, data=data, tolerance=tolerance
        )
    if json:
        write_text_atomic(json, divergence.model_dump_json(indent=2) + "\n")
    print_divergence(make_console(), divergence)


def accuracy(
    run: RunFolder,
    *,
    data_items: Items = None,
    data: MovedData = None,
    max_drop: MaxDrop = None,
    policy: PolicyFile = None,
    json: WriteJson = None,
    quiet: Quiet = False,
) -> None:
    """Find which layers' pruning costs most, and the fewest to keep dense."""
    from snowsdeploy.errors import UsageError
    from snowsdeploy.settings.policy import GatePolicy
    from snowsdeploy.settings.read import load_policy

    if policy and max_drop is not None:
        raise UsageError(
            "--max-drop and --policy both say what must pass",
            fix="give one of them",
            seen="--max-drop beside --policy",
            allowed="one of them",
        )
    limits = load_policy(policy) if policy else GatePolicy()
    if max_drop is not None:
        limits = GatePolicy(max_drop=max_drop)
    require_prune("debug accuracy")
    from snowsdeploy.files import write_text_atomic
    from snowsdeploy.stages.debug import run_debug_accuracy
    from snowsdeploy_cli.console import make_console
    from snowsdeploy_cli.render import print_accuracy_cost

    with observed(quiet=quiet) as observer:
        costs = run_debug_accuracy(run, data_items, limits, observer, data)
    if json:
        write_text_atomic(json, costs.model_dump_json(indent=2) + "\n")
    print_accuracy_cost(make_console(), costs)
