"""The machine and the versions behind the figures."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from snowsdeploy.runtime.gpu_state import list_gpus
from snowsdeploy.values import Environment

_PACKAGES = (
    "snowsdeploy",
    "torch",
    "timm",
    "onnx",
    "onnxscript",
    "onnxruntime-gpu",
    "onnxruntime",
    "tensorrt",
    "numpy",
)


def describe_environment() -> Environment:
    """Describe this machine; names no host."""
    cores = os.cpu_count() or 1
    return Environment(
        machine=f"{platform.machine()}, {cores} cores",
        cpu=_cpu_model(),
        cores=cores,
        memory_bytes=psutil.virtual_memory().total,
        gpus=tuple(gpu.name for gpu in list_gpus()),
        os=f"{platform.system()} {platform.release()}",
        versions={"python": platform.python_version(), **installed_versions(_PACKAGES)},
    )


def installed_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
