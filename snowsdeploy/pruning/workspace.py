"""Where a pruning keeps what it can go on from, and activations that do not fit into memory."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from snowsdeploy.distributed import rank
from snowsdeploy.files import remove_if_empty, remove_own, write_text_atomic
from snowsdeploy.machine import free_disk
from snowsdeploy.pruning.checkpoints import OWN_FILES, Checkpoints
from snowsdeploy.pruning.flow.storage import ACTIVATION_FILES, Storage
from snowsdeploy.values import MemoryPlan

_PLAN = "memory.json"
_KEPT = re.compile(f"{OWN_FILES.pattern}|{re.escape(_PLAN)}")


@dataclass(frozen=True)
class Workspace:
    """Two folders, both of which are made when they are needed.

    Attributes:
        kept: Solved units, the masks and the order of channels: what a later run with the same settings goes on from.
        scratch: Activations on disk; only there while something is solved.
        resume: Whether the memory plan that an earlier run left is kept.
    """

    kept: Path
    scratch: Path
    resume: bool = False

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[Workspace]:
        """One that is gone when the block ends."""
        with tempfile.TemporaryDirectory(prefix="snowsdeploy-") as folder:
            yield cls(Path(folder) / "layers", Path(folder) / "activations")

    def checkpoints(self, key: str, device: torch.device) -> Checkpoints:
        """What a run under the same key has left."""
        return Checkpoints(self.kept, key, device)

    def free_bytes(self) -> int:
        """Of the disk."""
        place = self.scratch.absolute()
        while not place.exists():
            place = place.parent
        return free_disk(place)

    def write_plan(self, plan: MemoryPlan) -> None:
        """Keep a memory plan for a run that goes on."""
        self.kept.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self.kept / _PLAN, plan.model_dump_json(indent=2) + "\n")

    def read_plan(self) -> MemoryPlan | None:
        """The plan that an interrupted run left; None where none is to be kept."""
        if not self.resume:
            return None
        try:
            return MemoryPlan.model_validate_json((self.kept / _PLAN).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None

    @contextmanager
    def activations(self, plan: MemoryPlan) -> Iterator[Storage]:
        """Where a plan wants activations; nothing of it is left afterwards, nor of a run that was killed."""
        self.clear_scratch(str(rank()))
        try:
            yield Storage(plan.storage, self.scratch / str(rank()))
        finally:
            self.clear_scratch(str(rank()))

    def clear_scratch(self, process: str = "*") -> None:
        """Remove activations of a process, or of all that were killed; what others put there stays."""
        for folder in self.scratch.glob(process):
            if folder.name.isdecimal() and folder.is_dir() and not folder.is_symlink():
                for store in list(folder.iterdir()):
                    remove_own(store, ACTIVATION_FILES)
                remove_if_empty(folder)
        remove_if_empty(self.scratch)

    def clear(self) -> None:
        """Remove what was kept: the pruning is complete, or begins again."""
        remove_own(self.kept, _KEPT)
