"""What a run has solved, on disk, so that it survives a kill."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from snowsdeploy.data.digest import tensors_digest
from snowsdeploy.device import CPU
from snowsdeploy.distributed import from_first, rank
from snowsdeploy.models.tensor_files import save_tensors
from snowsdeploy.runtime.environment import installed_versions
from snowsdeploy.values.base import Artifact

T = TypeVar("T", bound=Artifact)
OWN_FILES = re.compile(r"[0-9a-f]{16}\.safetensors")


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
            report = metadata["report"]
            if metadata["digest"] != _digest(tensors, report):
                return None
            return tensors, kind.model_validate_json(report)
        except (SafetensorError, KeyError, ValidationError, OSError):
            return None  # written by another version, damaged or changed: solved again

    def save(self, problem: str, tensors: Mapping[str, Tensor], report: Artifact) -> None:
        """Store a result; atomic.

        Raises:
            OutputError: It could not be written.
        """
        if rank():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        text = report.model_dump_json()
        metadata = {"key": self.key, "report": text, "digest": _digest(tensors, text)}
        save_tensors(self._path(problem), tensors, metadata)

    def _path(self, problem: str) -> Path:
        return self.folder / f"{sha256(problem.encode()).hexdigest()[:16]}.safetensors"


def run_key(**parts: object) -> str:
    """A digest of everything that decides the solved weights, versions of what computes them included."""
    parts |= {"versions": installed_versions(("snowsdeploy", "torch"))}
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _digest(tensors: Mapping[str, Tensor], report: str) -> str:
    return sha256(f"{tensors_digest(tensors)}{report}".encode()).hexdigest()
