"""Several processes on one job, as torchrun starts them: joined for the library, and told apart for the terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from snowsdeploy.errors import UsageError

if TYPE_CHECKING:
    from snowsdeploy.distributed import Launch

_WAIT = timedelta(hours=12)  # the first process measures and exports while the others have nothing to do


def process_number() -> int:
    """Which of torchrun's processes this is; 0 alone. Reads the environment, so that it costs no import."""
    return int(os.environ.get("RANK", "0")) if _started_by_torchrun() else 0


def launch() -> Launch | None:
    """How torchrun started this process; None without it."""
    import psutil

    from snowsdeploy.distributed import Launch

    if not _started_by_torchrun():
        return None
    agent = psutil.Process(os.getppid())  # which stays; a number alone may come again
    return Launch(f"{os.environ['TORCHELASTIC_RUN_ID']} {agent.pid} {agent.create_time()}", _restarts() != "0")


def require_one_process(command: str) -> None:
    """Refuse torchrun for a command that cannot share its work.

    Raises:
        UsageError: There are several processes.
    """
    if _started_by_torchrun() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            f"{command} runs in one process",
            seen=f"torchrun with {os.environ['WORLD_SIZE']} processes",
            allowed="prune and prune-export share their calibration images among processes",
            fix=f"start snowsdeploy {command} without torchrun",
        )


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Join torchrun's processes: NCCL between GPUs, Gloo between CPUs; nothing happens without torchrun.

    Args:
        device: `--device`; on a machine with several GPUs each process takes its own.

    Raises:
        UsageError: `--device` names one GPU for all processes, or there are more processes than GPUs.
    """
    if not _started_by_torchrun():
        yield
        return
    import torch
    from torch import distributed

    if device.startswith("cuda:"):
        raise UsageError(
            "--device names one GPU for several processes", seen=device, allowed="auto, cuda or cpu", fix="use cuda"
        )
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > gpus:
            raise UsageError(
                "there are more processes than GPUs",
                seen=f"{here} processes, {gpus} GPUs",
                fix=f"use --nproc-per-node={gpus}, or --device cpu",
                allowed="a GPU for each process",
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, rank, world = next(distributed.rendezvous("env://", timeout=_WAIT))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        timeout=_WAIT,
        # processes that torchrun started again must not read addresses that those before them left
        store=distributed.PrefixStore(f"start {_restarts()}", store),
        rank=rank,
        world_size=world,
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _restarts() -> str:
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
