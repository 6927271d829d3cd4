"""Does ONNX Runtime survive a file? A fault of its native code ends the whole process, so one of its own is risked."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from snowsdeploy.runtime.providers import PROVIDERS
from snowsdeploy.settings.runtime import RuntimeSettings

_SECONDS = 600  # for all files; a process that hangs is ended, and the file is left to the caller

# Says which file it begins, opens it, and runs it once on zeros. What only raises is raised again where it is reported.
_PROGRAM = """
import json, sys
import numpy as np
import onnxruntime as ort
files, providers = json.loads(sys.argv[1])
if providers[0][0] != "CPUExecutionProvider":
    ort.preload_dlls()
for number, file in enumerate(files):
    print(number, flush=True)
    try:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        session = ort.InferenceSession(file, options, providers=providers)
        kinds = {"float": "float32", "double": "float64"}
        feed = {}
        for value in session.get_inputs():
            kind = value.type.removeprefix("tensor(").removesuffix(")")
            shape = [size if isinstance(size, int) else 1 for size in value.shape]
            feed[value.name] = np.zeros(shape, kinds.get(kind, kind))
        session.run(None, feed)
    except Exception:
        pass
"""


def native_crashes(files: Sequence[Path], runtime: RuntimeSettings) -> dict[Path, str]:
    """The files that end a process which opens and runs them, and how it ended.

    Engines that take minutes to build are not tried: of their providers nothing is known here.

    Args:
        files: ONNX files.
        runtime: Where they run.
    """
    wanted = PROVIDERS[runtime.provider]
    if wanted.cache:
        return {}
    providers = [(wanted.ep, {**wanted.options, **runtime.provider_option})]
    providers += [(PROVIDERS[name].ep, {}) for name in runtime.allow_fallback if name != wanted.name]
    left, found = list(files), dict[Path, str]()
    while left:
        begun, how = _tried(left, providers)
        if not how:
            break
        found[left[begun]] = how
        left = left[begun + 1 :]
    return found


def _tried(files: Sequence[Path], providers: Sequence[tuple[str, dict[str, str]]]) -> tuple[int, str]:
    """The file at which the process ended, and how; no words where it came to the end of all."""
    task = json.dumps([[str(file.resolve()) for file in files], providers])
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, task], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return 0, ""
    begun = [int(line) for line in done.stdout.split() if line.isdigit()]
    if done.returncode >= 0 or not begun:
        return 0, ""
    return begun[-1], (signal.strsignal(-done.returncode) or f"signal {-done.returncode}").lower()
