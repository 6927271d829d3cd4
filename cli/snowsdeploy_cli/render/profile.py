"""Files side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from snowsdeploy_cli.console import say
from snowsdeploy_cli.render.table import make_table

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.artifacts import Profile, ProfiledFile

_SHOWN = 6  # operators of a file


def print_profile(console: Console, profile: Profile) -> None:
    """Latency, ratios to the first file, and where the time goes."""
    columns = ("N", "p50", "p90", "p95", "p99", "images/s")
    title = f"Latency in ms a call, --provider {profile.provider}, {profile.series[0].runs} calls each at batch size N"
    table = make_table(title, "file", *columns, "first / this", numbers=columns)
    ratios = {(r.file, r.batch): r for r in profile.ratios}
    for row in profile.series:
        ratio = ratios.get((row.file, row.batch))
        gain = escape(f"{ratio.speedup:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]") if ratio else "1"
        times = [f"{v:.3g}" for v in (row.p50_ms, row.p90_ms, row.p95_ms, row.p99_ms)]
        table.add_row(escape(row.file.name), str(row.batch), *times, f"{row.images_per_second:.0f}", gain)
    console.print(table)
    for file in profile.files:
        _print_operators(console, file)
    if profile.note:
        say(console, profile.note, style="yellow")


def _print_operators(console: Console, file: ProfiledFile) -> None:
    columns = ("ms", "share", "pruned, ms")
    table = make_table(f"Where the time of {file.file.name} goes", "operator", *columns, numbers=columns)
    for row in file.operators[:_SHOWN]:
        table.add_row(escape(row.operator), f"{row.ms:.3g}", f"{row.share:.0%}", f"{row.pruned_ms:.3g}")
    console.print(table)
    say(
        console,
        f"{file.pruned_share:.0%} of the time is in products with pruned weights: "
        f"at twice the speed there, the whole could be {file.best_speedup:.2f}x as fast at most.",
    )
