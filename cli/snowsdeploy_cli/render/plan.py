"""What a run is expected to cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snowsdeploy_cli.console import say
from snowsdeploy_cli.render.table import make_table

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.values import RunPlan

_NAMES = 2  # of a unit's layers
_WHAT = {
    "load": "load and trace",
    "permute": "permute channels",
    "masks": "masks before the first solve",
    "sensitivity": "output curvature",
    "forward": "forward passes",
    "final": "final pass",
}


def print_plan(console: Console, plan: RunPlan) -> None:
    """A row for each solve, the other stages, and the sums."""
    numbers = ("time", "masks", "a product", "memory")
    table = make_table(
        f"{plan.model}: pruning on {plan.images} images, expected on {plan.device}", "layers", *numbers, numbers=numbers
    )
    for unit in plan.units:
        more = f" and {len(unit.layers) - _NAMES} more" if len(unit.layers) > _NAMES else ""
        table.add_row(
            ", ".join(unit.layers[:_NAMES]) + more,
            duration(unit.seconds),
            duration(unit.mask_seconds),
            duration(unit.product_seconds) if unit.products else "",
            f"{unit.memory_bytes / 2**30:.1f} GiB",
        )
    for stage, seconds in plan.stages.items():
        if seconds >= 0.05:
            table.add_row(_WHAT[stage], duration(seconds), "", "", "")
    console.print(table)
    say(console, str(plan.memory))
    say(console, f"disk: {plan.disk_bytes / 2**30:.2f} GiB in the run directory")
    measured = sum(not unit.like for unit in plan.units)
    say(
        console,
        f"time: {duration(plan.seconds)} to prune; {measured} of {len(plan.units)} solves were measured on two "
        f"batches, in {duration(plan.measured_seconds)}. Export and validation come after it.",
        style="bold",
    )


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, to what a prediction is good for."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
