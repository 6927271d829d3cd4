"""What a run has solved, on disk, so that it survives a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from snowsdeploy.device import CPU
from snowsdeploy.distributed import from_first, rank
from snowsdeploy.models.tensor_files import save_tensors
from snowsdeploy.values.base import Artifact

T = TypeVar("T", bound=Artifact)


@dataclass(frozen=True)
class Checkpoints:
    """Results on disk, tensors with a report each.

    Attributes:
        folder: One safetensors file a result: the masks where they are chosen first, each unit, the final pass.
        key: Identifies the run: model, data, settings. A file with another key is not used.
        device: Where loaded tensors go.

    Of several processes the first reads and writes.
    """

    folder: Path
    key: str
    device: torch.device = CPU

    def load(self, problem: str, kind: type[T]) -> tuple[dict[str, Tensor], T] | None:
        """What was found before under the same key, else None."""
        found = from_first(self._read(problem, kind) if rank() == 0 else None)
        return found and ({name: tensor.to(self.device) for name, tensor in found[0].items()}, found[1])

    def _read(self, problem: str, kind: type[T]) -> tuple[dict[str, Tensor], T] | None:
        path = self._path(problem)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as stored:
                metadata = stored.metadata() or {}
                if metadata.get("key") != self.key:
                    return None
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError:
            return None  # written by another version or damaged: solved again
        return tensors, kind.model_validate_json(metadata["report"])

    def save(self, problem: str, tensors: Mapping[str, Tensor], report: Artifact) -> None:
        """Store a result; atomic.

        Raises:
            OutputError: It could not be written.
        """
        if rank():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        metadata = {"key": self.key, "report": report.model_dump_json()}
        save_tensors(self._path(problem), tensors, metadata)

    def _path(self, problem: str) -> Path:
        return self.folder / f"{sha256(problem.encode()).hexdigest()[:16]}.safetensors"


def run_key(**parts: object) -> str:
    """A digest of everything that decides the solved weights."""
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
