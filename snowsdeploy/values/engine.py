"""What a TensorRT engine made of the pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from snowsdeploy.values.base import Artifact
from snowsdeploy.values.numbers import Count

WHY_NOT_CHOSEN = "Eligible but not chosen is normal: the engine timed both kernels and kept the faster one."


class EngineSource(Artifact):
    """Where the account of an engine comes from.

    Attributes:
        kind: `log`: a verbose build log; `layers`: the engine inspector's JSON.
        path: The file; None for text that was captured while an engine was built.
        sha256: Of its content.
    """

    kind: Literal["log", "layers"]
    path: Path | None = None
    sha256: str


class EngineEvidence(Artifact):
    """Pruned layers that hold the pattern, that the engine found eligible, and for which it chose a sparse kernel.

    Attributes:
        sources: What was read.
        pruned: Layers that had to hold the pattern; when only inspecting, those that hold it.
        eligible: Of them, those whose layout is valid in the file.
        found: Of them, those that the engine called eligible.
        found_unknown: Of them, those of which the sources do not say it.
        chosen: Of them, those that run a sparse kernel.
        chosen_unknown: Of them, those of which the sources do not say it.
        engine_layers: Layers of the engine, where the inspector listed them.
        notes: What could not be read or mapped to a layer, and why.
    """

    sources: tuple[EngineSource, ...]
    pruned: Count
    eligible: Count
    found: Count
    found_unknown: Count = 0
    chosen: Count
    chosen_unknown: Count = 0
    engine_layers: Count | None = None
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _at_most_pruned(self) -> Self:
        counted = {
            "eligible": self.eligible,
            "found + found_unknown": self.found + self.found_unknown,
            "chosen + chosen_unknown": self.chosen + self.chosen_unknown,
        }
        for name, count in counted.items():
            if count > self.pruned:
                raise ValueError(f"{name} is {count}, more than the {self.pruned} pruned layers")
        return self

    @property
    def account(self) -> str:
        """Both counts as sentences, and what they mean where they differ."""
        layers = f"{self.pruned} pruned layers"
        found = f"TensorRT found {self.found} of {layers} eligible{_unknown(self.found_unknown)}"
        chosen = f"{self.chosen}{_unknown(self.chosen_unknown)}"
        if self.found_unknown == self.chosen_unknown == self.pruned:
            return f"Of {layers} it is unknown which TensorRT found eligible and which run sparse kernels."
        if self.found_unknown == self.pruned:
            return f"TensorRT chose sparse kernels for {chosen} of {layers}; which it found eligible is unknown."
        if self.chosen_unknown == self.pruned:
            return f"{found}; which run sparse kernels is unknown."
        passed_over = self.chosen + self.chosen_unknown < self.found
        return f"{found} and chose sparse kernels for {chosen}." + (f" {WHY_NOT_CHOSEN}" if passed_over else "")


def _unknown(count: int) -> str:
    return f" ({count} unknown)" if count else ""
