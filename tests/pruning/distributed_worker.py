"""Run by torchrun: prune tiny nets on this process' batches and save what came out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import distributed

from snowsdeploy.distributed import rank, share, world
from tests.pruning.test_distributed import BATCHES, CASES, LABELS, prune


def main(folder: Path) -> None:
    """Write `CASE-RANK.pt`, the tensors that this process ended with."""
    distributed.init_process_group("gloo")
    torch.set_num_threads(1)
    own, labels = BATCHES[rank() :: world()], torch.cat(LABELS[rank() :: world()])
    held = share(len(BATCHES)) - share(len(BATCHES) - 1)
    for case in CASES:
        torch.save(prune(case, own, labels, held, share(2)), folder / f"{case}-{rank()}.pt")
    distributed.barrier()
    distributed.destroy_process_group()
    os._exit(0)  # now and then a thread of PyTorch's is alive when Python ends, and aborts the process


if __name__ == "__main__":
    main(Path(sys.argv[1]))
