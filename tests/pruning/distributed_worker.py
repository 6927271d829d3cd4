"""Run by torchrun: prune a tiny net on this process' batches and save what came out."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed

from snowsdeploy.distributed import rank, share, world
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.prune import prune_program
from tests.pruning.test_distributed import BATCHES, LAYERS, PATTERN, make, plan


def main(net: str, folder: Path) -> None:
    """Write `rank.pt`, the tensors that this process ended with."""
    distributed.init_process_group("gloo")
    torch.set_num_threads(1)
    own = BATCHES[rank() :: world()]
    held = share(len(BATCHES)) - share(len(BATCHES) - 1)
    found = prune_program(make(net), own, LAYERS[net], PATTERN, plan(held, share(2)), observer=NullObserver())
    torch.save(found.tensors, folder / f"{rank()}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
