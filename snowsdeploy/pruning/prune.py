"""The whole model: masks, then reconstruction front to back, each unit seeing the pruned prefix; resumable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from snowsdeploy.artifacts import LayerDecision, LayerReport
from snowsdeploy.errors import LayoutError
from snowsdeploy.files import atomic_path
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.progress import Observer
from snowsdeploy.pruning.activations import Activations
from snowsdeploy.pruning.reconstruct import Reconstruction
from snowsdeploy.pruning.schedule import Unit, make_schedule
from snowsdeploy.selectors import SELECTORS
from snowsdeploy.sparsity.pattern import Pattern, count_violations, mask_by_score


@dataclass(frozen=True)
class Checkpoints:
    """Solved units on disk, so that a run survives a kill.

    Attributes:
        folder: One safetensors file a unit.
        key: Identifies the run: model, data, settings. A file with another key is not used.
    """

    folder: Path
    key: str

    def load(self, unit: Unit) -> tuple[dict[str, Tensor], LayerReport] | None:
        """A unit solved before under the same key, else None."""
        path = self._path(unit)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as stored:
                metadata = stored.metadata() or {}
                if metadata.get("key") != self.key:
                    return None
                weights = {name: stored.get_tensor(name) for name in unit.weights}
        except SafetensorError:
            return None  # written by another version or damaged: solved again
        return weights, LayerReport.model_validate_json(metadata["report"])

    def save(self, unit: Unit, weights: dict[str, Tensor], report: LayerReport) -> None:
        """Store a unit; atomic."""
        self.folder.mkdir(parents=True, exist_ok=True)
        metadata = {"key": self.key, "report": report.model_dump_json()}
        with atomic_path(self._path(unit)) as path:
            save_file({n: w.contiguous() for n, w in weights.items()}, path, metadata=metadata)

    def _path(self, unit: Unit) -> Path:
        return self.folder / f"{sha256('|'.join(unit.weights).encode()).hexdigest()[:16]}.safetensors"


def run_key(**parts: object) -> str:
    """A digest of everything that decides the solved weights."""
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def select_masks(
    program: Program, decisions: Sequence[LayerDecision], pattern: Pattern, selector: str
) -> dict[str, Tensor]:
    """Weight name -> boolean mask, for each pruned layer."""
    state = program.state_dict
    weights = [d.weight for d in decisions if d.prunable and d.weight]
    return {w: mask_by_score(SELECTORS[selector](state[w].detach()), pattern) for w in weights}


def prune_program(
    program: Program,
    batches: Sequence[Tensor],
    masks: dict[str, Tensor],
    pattern: Pattern,
    method: Reconstruction,
    *,
    joint: bool,
    observer: Observer,
    checkpoints: Checkpoints | None = None,
) -> tuple[dict[str, Tensor], tuple[LayerReport, ...]]:
    """Solve every unit in graph order.

    Args:
        program: The dense program.
        batches: Calibration images, `[batch, C, H, W]` each.
        masks: From `select_masks`.
        pattern: Checked on every weight before and after its solve.
        method: How a unit is solved.
        joint: Solve the layers of a residual block together.
        observer: Told about each unit.
        checkpoints: Solved units are read from and written there.

    Returns:
        Solved weights by name, and a report a unit.

    Raises:
        LayoutError: A mask or a solved weight breaks the pattern.
        NumericsError: An activation is not finite.
    """
    graph = ProgramGraph(program)
    state = graph.state_values()
    dense, pruned = Activations(graph, batches, state), Activations(graph, batches, state)
    solved: dict[str, Tensor] = {}
    reports: list[LayerReport] = []
    units = make_schedule(graph, list(masks), joint=joint)
    for index, unit in enumerate(units):
        for name in unit.weights:
            require_pattern(name, masks[name], pattern, "mask")
        found = checkpoints.load(unit) if checkpoints else None
        if found is not None:
            weights, report = found
            for name, weight in weights.items():
                pruned.set_weight(graph.placeholder(name), weight)
        else:
            weights, report = method.solve(graph, unit, dense, pruned, masks)
            if checkpoints:
                checkpoints.save(unit, weights, report)
        for name, weight in weights.items():
            require_pattern(name, weight, pattern, "solved weight")
        solved |= weights
        reports.append(report)
        observer.advance(index + 1, len(units), describe(report, restored=found is not None))
    return solved, tuple(reports)


def require_pattern(name: str, tensor: Tensor, pattern: Pattern, what: str) -> None:
    """Raise when a tensor `[K, C, ...]` breaks the pattern.

    Raises:
        LayoutError: At least one group has too many non-zeros.
    """
    groups, violations = count_violations(tensor, pattern)
    if violations:
        raise LayoutError(f"the {what} of {name} is not {pattern}", seen=f"{violations} of {groups} groups")


def describe(report: LayerReport, *, restored: bool = False) -> str:
    """One line about a solve, for people."""
    names = ", ".join(report.layers)
    note = ", restored" if restored else f", {report.seconds:.1f} s"
    return f"{names}: loss {report.loss_masked:.3g} -> {report.loss_final:.3g}{note}"
