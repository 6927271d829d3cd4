"""What this machine has left: memory and disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory() -> int:
    """Bytes that this process may still take: the machine's, or what is left of its container's limit."""
    left = int(psutil.virtual_memory().available)
    for limit, used in _CGROUPS:
        values = [_number(Path(path)) for path in (limit, used)]
        if values[0] is not None and values[1] is not None:
            left = min(left, max(values[0] - values[1], 0))
    return left


def resident_memory() -> int:
    """Bytes of this process."""
    return int(psutil.Process().memory_info().rss)


def free_disk(folder: Path) -> int:
    """Bytes free where a folder is."""
    return shutil.disk_usage(folder).free


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" is no limit
