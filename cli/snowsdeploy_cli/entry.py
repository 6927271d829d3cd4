"""The door of the command line: signals and streams are in hand before anything that takes time is imported.

Whoever stops the program, at whatever moment, gets one line and a code that is no verdict; and no reader that has gone,
no closed stream and no full disk behind one changes a verdict's code.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType

from snowsdeploy.streams import plain_stream

INTERRUPTED, TERMINATED = 130, 143
_received: set[int] = set()
_AGAIN, _AT_MOST = 0.05, 10.0  # seconds


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which schedulers and CI servers end a job: work stops as on Ctrl-C."""


def main() -> None:
    """Entry point of `snowsdeploy` and of `python -m snowsdeploy_cli`."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, _stop)
        _hold_streams()
        from snowsdeploy_cli.app import app

        app(prog_name="snowsdeploy")
    except KeyboardInterrupt as error:
        sys.exit(told(error, resumable=False))
    except SystemExit as end:
        if end.code == INTERRUPTED and signal.SIGTERM in _received:  # Typer takes every interruption for Ctrl-C
            sys.exit(TERMINATED)
        raise


def told(error: KeyboardInterrupt, *, resumable: bool) -> int:
    """Say that work has ended early, and what of it is kept.

    Args:
        error: What ended it.
        resumable: Whether the command has `--resume`.

    Returns:
        The exit code.
    """
    ended = isinstance(error, Terminated)
    word = "terminated" if ended else "interrupted"
    more = ": run the same command with --resume to continue; the layers solved so far are kept in --out"
    sys.stderr.write(f"\n{word}{more if resumable else ''}\n")
    sys.stderr.flush()
    return TERMINATED if ended else INTERRUPTED


def _stop(number: int, frame: FrameType | None, since: float | None = None) -> None:
    """Raise where the program is, but not inside an import: through a library's native start that would be an abort."""
    _received.add(number)
    signal.signal(number, signal.SIG_DFL)  # a second one ends the program at once
    since = since or time.monotonic()
    if _importing(frame) and time.monotonic() - since < _AT_MOST:
        signal.signal(signal.SIGALRM, lambda _, later: _stop(number, later, since))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        return
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


def _hold_streams() -> None:
    """Streams that never fail; a closed one is held, so that no file of ours gets its number and others' output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    sys.stdout, sys.stderr = plain_stream(sys.stdout), plain_stream(sys.stderr)
