"""What a run has solved, on disk, so that it survives a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from snowsdeploy.artifacts.base import Artifact
from snowsdeploy.files import atomic_path

T = TypeVar("T", bound=Artifact)


@dataclass(frozen=True)
class Checkpoints:
    """Results on disk, tensors with a report each.

    Attributes:
        folder: One safetensors file a result: the masks where they are chosen first, each unit, the final pass.
        key: Identifies the run: model, data, settings. A file with another key is not used.
    """

    folder: Path
    key: str

    def load(self, problem: str, kind: type[T]) -> tuple[dict[str, Tensor], T] | None:
        """What was found before under the same key, else None."""
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
        """Store a result; atomic."""
        self.folder.mkdir(parents=True, exist_ok=True)
        metadata = {"key": self.key, "report": report.model_dump_json()}
        with atomic_path(self._path(problem)) as path:
            save_file({n: t.contiguous() for n, t in tensors.items()}, path, metadata=metadata)

    def _path(self, problem: str) -> Path:
        return self.folder / f"{sha256(problem.encode()).hexdigest()[:16]}.safetensors"


def run_key(**parts: object) -> str:
    """A digest of everything that decides the solved weights."""
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
