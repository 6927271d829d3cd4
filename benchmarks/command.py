"""The command line on a benchmark model, in a process of its own or in several."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.models import MODELS

REPOSITORY = Path(__file__).resolve().parents[1]


def arguments(command: str, model: str, settings: Mapping[str, Any]) -> list[str]:
    """`command MODEL --option value ...` of one of `MODELS` with more settings laid over it."""
    values = MODELS[model] | dict(settings)
    if command != "prune-export":
        values = {k: v for k, v in values.items() if k != "eval_data"}
    parts = [command, values.pop("model")]
    for name, value in values.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            parts += [option]
        elif value is False:
            parts += ["--no-" + name.replace("_", "-")]
        else:
            parts += [option, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return parts


def start(parts: list[str], *, processes: int = 1, threads: int = 1) -> subprocess.Popen[str]:
    """Start it; with several processes by torchrun."""
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    paths = (REPOSITORY, REPOSITORY / "cli", REPOSITORY / "exporters")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": str(threads)}
    command, pipe = [*launcher, "snowsdeploy_cli", *parts], subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str], allowed: tuple[int, ...] = (0,)) -> str:
    """Wait for it; what it printed."""
    output, errors = process.communicate()
    if process.returncode not in allowed:
        sys.exit(f"exit code {process.returncode}\n{errors[-3000:]}")
    return output


def differences(one: Path, other: Path) -> dict[str, Any]:
    """Of two runs' tensors: how many differ in a bit, how many have another mask, the largest relative error."""
    a, b = (load_file(folder / "pruned.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    bits = sum(not torch.equal(a[name], b[name]) for name in a)
    masks = sum(not torch.equal(a[name] != 0, b[name] != 0) for name in a if a[name].dim() > 1)
    errors = [float((a[name] - b[name]).norm() / a[name].norm().clamp_min(1e-30)) for name in a]
    return {"tensors_that_differ": bits, "masks_that_differ": masks, "largest_error": max(errors)}
