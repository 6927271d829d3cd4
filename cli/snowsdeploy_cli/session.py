"""What every command that does long work shares: the observer, quiet libraries, the processes of torchrun."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from snowsdeploy.display import ConsoleObserver
from snowsdeploy.install import require_extra
from snowsdeploy_cli.console import make_console, quiet_onnxruntime
from snowsdeploy_cli.processes import joined, process_number, require_one_process

if TYPE_CHECKING:
    from snowsdeploy.progress import Observer


def require_prune(command: str) -> None:
    """Refuse a command that needs PyTorch where it is not installed.

    Raises:
        InstallError: It is not; the message has the command that installs it.
    """
    require_extra("prune", f"snowsdeploy {command}")


@contextmanager
def observed(*, quiet: bool) -> Iterator[Observer]:
    """Progress on standard error, ONNX Runtime's own messages off the terminal."""
    quiet_onnxruntime()
    with ConsoleObserver(make_console(stderr=True), quiet=quiet) as observer:
        yield observer


@contextmanager
def shared(device: str, *, quiet: bool) -> Iterator[tuple[Observer, bool]]:
    """As `observed`, in all processes that torchrun started; the first of them speaks.

    Args:
        device: `--device`.
        quiet: Whether it was asked to be.

    Yields:
        The observer, and whether this is the first process.
    """
    first = process_number() == 0
    with joined(device), observed(quiet=quiet or not first) as observer:
        yield observer, first


@contextmanager
def alone(command: str, *, quiet: bool) -> Iterator[Observer]:
    """As `observed`, for a command that cannot share its work.

    Raises:
        UsageError: torchrun started several processes.
    """
    require_one_process(command)
    with observed(quiet=quiet) as observer:
        yield observer
