"""Files side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snowsdeploy_cli.console import say
from snowsdeploy_cli.render.table import make_table

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.values import Profile, ProfiledFile, TimedFile

_SHOWN = 6  # operators of a file


def print_profile(console: Console, profile: Profile) -> None:
    """Latency, ratios to the first file, memory, and where the time goes."""
    for copies in dict.fromkeys(row.copies for row in profile.series):
        rows = [row for row in profile.series if row.copies == copies]
        _print_latency(console, profile, rows)
    _print_memory(console, profile)
    for file in profile.files:
        _print_operators(console, file)
    for reading in profile.gpu:
        facts = (
            (reading.sm_clock_mhz, "MHz"),
            (reading.memory_clock_mhz, "MHz memory"),
            (reading.power_w, "W"),
            (reading.temperature_c, "degrees C"),
        )
        known = ", ".join(f"{value:.0f} {unit}" for value, unit in facts if value is not None)
        say(console, f"{reading.gpu} {reading.moment}: {known or 'nothing told'}")
    if profile.note:
        say(console, profile.note, style="yellow")


def _print_latency(console: Console, profile: Profile, rows: list[TimedFile]) -> None:
    say(console, f"Latency on {profile.provider}, copies to and from the device {rows[0].copies}", style="bold")
    columns = ("N", "p50", "p90", "p95", "p99", "images/s")
    table = make_table(f"ms a call, {rows[0].runs} calls each at batch size N", "file", *columns, numbers=columns)
    for row in rows:
        times = [f"{v:.3g}" for v in (row.p50_ms, row.p90_ms, row.p95_ms, row.p99_ms)]
        table.add_row(row.name, str(row.batch), *times, f"{row.images_per_second:.0f}")
    console.print(table)
    found = [ratio for ratio in profile.ratios if ratio.copies == rows[0].copies]
    if not found:
        return
    title = f"How many times as fast as {found[0].baseline}"
    table = make_table(title, "file", "N", "ratio", "95 % interval", numbers=("N", "ratio"))
    for ratio in found:
        table.add_row(ratio.name, str(ratio.batch), f"{ratio.speedup:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}")
    console.print(table)


def _print_memory(console: Console, profile: Profile) -> None:
    rows = [row for row in profile.series if row.host_bytes is not None]
    if not rows:
        return
    columns = ("N", "host MiB", "GPU MiB")
    table = make_table("Peak memory that loading and running adds", "file", *columns, numbers=columns)
    for row in {(row.name, row.batch): row for row in rows}.values():
        sizes = (row.host_bytes, row.device_bytes)
        texts = ["" if size is None else f"{size / 2**20:.0f}" for size in sizes]
        table.add_row(row.name, str(row.batch), *texts)
    console.print(table)


def _print_operators(console: Console, file: ProfiledFile) -> None:
    columns = ("ms", "share", "pruned, ms")
    table = make_table(f"Where the time of {file.name} goes", "operator", *columns, numbers=columns)
    for row in file.operators[:_SHOWN]:
        table.add_row(row.operator, f"{row.ms:.3g}", f"{row.share:.0%}", f"{row.pruned_ms:.3g}")
    console.print(table)
    if file.pruned_share is None or file.best_speedup is None:
        say(
            console,
            "An engine ran as one operator; trtexec --exportProfile tells the times of its layers.",
        )
        return
    say(
        console,
        f"{file.pruned_share:.0%} of the time is in products with pruned weights: "
        f"at twice the speed there, the whole could be {file.best_speedup:.2f}x as fast at most.",
    )
