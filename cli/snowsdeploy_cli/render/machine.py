"""What `doctor` found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from snowsdeploy_cli.console import say
from snowsdeploy_cli.render.table import make_table

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.runtime.doctor import Diagnosis


def print_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """Machine, versions, providers, what to change, and the verdict."""
    environment = diagnosis.environment
    say(console, f"{environment.cpu}, {environment.machine}, {environment.memory_bytes / 2**30:.0f} GiB")
    for gpu in diagnosis.gpus:
        cores = "sparse tensor cores" if gpu.sparse_tensor_cores else "no sparse tensor cores"
        say(console, f"{gpu.name}, compute capability {gpu.capability}: {cores}")
    say(console, ", ".join(f"{name} {version}" for name, version in environment.versions.items()))
    table = make_table("Execution providers, tried on a small model", "provider", "loads", "uses 2:4", "problem")
    for provider in diagnosis.providers:
        loads = Text("yes", "green") if provider.loads else Text("no", "red")
        table.add_row(provider.name, loads, provider.uses_sparsity, provider.problem)
    console.print(table)
    for hint in diagnosis.hints:
        say(console, f"- {hint}")
    for provider in diagnosis.providers:
        if provider.fix:
            say(console, f"- --provider {provider.name}: {provider.fix}")
    say(console, diagnosis.verdict, style="bold")
