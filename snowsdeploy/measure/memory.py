"""Peak memory of a file: loaded and run in a process of its own, whose peak nothing else has raised."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import psutil

from snowsdeploy.errors import ProviderError
from snowsdeploy.runtime.gpu_state import used_memory
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.settings.runtime import RuntimeSettings

_CALLS = 3
_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[4]); import {module} as m; m.measure_into(*sys.argv[1:4])"


def peak_memory(
    path: Path, runtime: RuntimeSettings, batch: int, axes: Mapping[str, int] = MappingProxyType({})
) -> tuple[int, int | None]:
    """By how much loading and running a file raises a process' peak memory and the GPU's used memory, bytes.

    Raises:
        ProviderError: The file does not run there.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "memory.json"
        told = runtime.model_dump(mode="json", include=set(RuntimeSettings.model_fields))
        wanted = {"path": str(path), "batch": batch, "axes": dict(axes), "runtime": told}
        request = json.dumps(wanted)
        command = [sys.executable, "-c", _CHILD.format(module=__name__), request, str(result), folder]
        done = subprocess.run([*command, json.dumps(sys.path)], capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ProviderError(
                "the memory of a file could not be measured",
                seen=f"{path}: {last[:200]}",
                allowed=f"a file that loads and runs with --provider {runtime.provider}",
                fix="see what snowsdeploy doctor says of the provider, or choose another --provider",
            )
        host, device = json.loads(result.read_text(encoding="utf-8"))
    return host, device


def measure_into(request: str, result: str, folder: str) -> None:
    """The other process: measure, and write `[host, device]` to a file."""
    del folder
    wanted = json.loads(request)
    runtime = RuntimeSettings.model_validate(wanted["runtime"])
    # Everything that any file needs is loaded by now, and counts before.
    before, used = psutil.Process().memory_info().rss, used_memory()
    session = OrtSession.open(Path(wanted["path"]), runtime)
    images = session.random_inputs(wanted["batch"], wanted["axes"])
    for _ in range(_CALLS):
        session.run(images)
    after = used_memory()
    device = None if used is None or after is None or runtime.provider == "cpu" else after - used
    Path(result).write_text(json.dumps([_peak() - before, device]), encoding="utf-8")


def _peak() -> int:
    """Largest resident size of this process; on Linux not that of the process which started it, as getrusage has it."""
    status = Path("/proc/self/status")
    if not status.is_file():
        info = psutil.Process().memory_info()
        return int(getattr(info, "peak_wset", info.rss))
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
