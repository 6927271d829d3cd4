"""The one table from what happened to the exit code and its message.

    0    the command did its work and every gate passed
    2    an option or its value is wrong (Typer uses the same code)
    3    could not run: the model, the data, the machine, the output directory
    4    a gate failed
    5    inconclusive: something a gate needs was not measured, or its limit lies inside the interval
    130  interrupted (Ctrl-C)
    143  terminated (SIGTERM)

1 is left to Python, so that a crash is never read as a verdict.
"""

from __future__ import annotations

import errno
import functools
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from snowsdeploy.errors import OutputError, ResourceError, SnowsDeployError, UsageError
from snowsdeploy.user_code import raised
from snowsdeploy_cli.console import print_error
from snowsdeploy_cli.entry import told
from snowsdeploy_cli.processes import process_number

if TYPE_CHECKING:
    from snowsdeploy.values import Verdict

_HEAD_START = 3.0  # seconds for the first process to speak: torchrun ends all as soon as one has ended
PASSED, USAGE, FAILED_TO_RUN, GATE_FAILED, INCONCLUSIVE = 0, 2, 3, 4, 5


def exit_code(verdict: Verdict | None) -> int:
    """The code of a verdict; a report without one is inconclusive."""
    if verdict is None:
        return INCONCLUSIVE
    return {"pass": PASSED, "fail": GATE_FAILED, "inconclusive": INCONCLUSIVE}[verdict.verdict]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command: errors that a user can cause become one message and a code, not a traceback."""

    @functools.wraps(command)  # Typer reads the options from the wrapped signature
    def run(*args: object, **kwargs: object) -> None:
        try:
            command(*args, **kwargs)
        except SnowsDeployError as error:
            _tell(error)
            raise typer.Exit(USAGE if isinstance(error, UsageError) else FAILED_TO_RUN) from error
        except (OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _out_of_memory(error):
                raise
            _tell(_from_machine(error))
            raise typer.Exit(FAILED_TO_RUN) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(told(error, resumable="resume" in kwargs)) from error
        except BaseException as error:
            if isinstance(error, Exception):
                raise
            _tell(raised("code of the model, the data or a metric", error))  # nothing else raises such
            raise typer.Exit(FAILED_TO_RUN) from error

    return run


def _tell(error: SnowsDeployError) -> None:
    """Once, where several processes have the same cause; else with the number of the process."""
    number = process_number()
    if number and isinstance(error, UsageError):
        time.sleep(_HEAD_START)
        return
    if number:
        typer.echo(f"process {number}:", err=True)
    print_error(error)


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether it is PyTorch's; where that was never imported it cannot be, and may not even be installed."""
    if "torch" not in sys.modules:
        return False
    from snowsdeploy.device import out_of_memory

    return out_of_memory(error)


def _from_machine(error: OSError | MemoryError | RuntimeError) -> SnowsDeployError:
    if not isinstance(error, OSError):
        lines = str(error).splitlines()[:1]
        return ResourceError(
            "the machine has too little memory",
            seen=lines[0] if lines else type(error).__name__,
            fix="lower --batch-size or --samples",
            allowed="what the machine has left",
        )
    path = f"{error.filename}: " if error.filename else ""
    seen = f"{path}{error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(
            "a file could not be written",
            seen=seen,
            allowed="a disk with room for the results",
            fix="free some space; the same command with --resume goes on where this one ended",
        )
    return OutputError(
        "the operating system refused",
        seen=seen,
        allowed="files and folders that this user may read and write",
        fix="check the path, its permissions and the free space",
    )
