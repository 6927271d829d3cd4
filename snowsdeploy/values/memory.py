"""What a run's memory was planned to be."""

from __future__ import annotations

from typing import Literal

from snowsdeploy.values.base import Artifact
from snowsdeploy.values.numbers import Count, Flag, Size


class UnitMemory(Artifact):
    """Bytes of one solve.

    Attributes:
        layers: Solved together.
        stored_per_image: Activations that lie between uses: of the dense and the pruned model, and the targets.
        graph_per_image: The window while it is differentiated.
        fixed: Least squares, their factors and the solver's vectors.
    """

    layers: tuple[str, ...]
    stored_per_image: Count
    graph_per_image: Count
    fixed: Count


class MemoryPlan(Artifact):
    """Where activations are and how large a batch may be, so that a run stays in its budget.

    Attributes:
        budget_bytes: Given, or most of what the machine has free.
        base_bytes: Of the process before anything is solved.
        storage: Of activations between uses: in memory, on disk, in half precision, or computed again each time.
        planned_batch: Images at once, at first.
        batch_size: The same after allocations that failed.
        whole_images: Whose graph of the whole model is held at once, for its output's curvature.
        loss_images: The same for the loss of a selector.
        peak_bytes: Expected at the unit that needs most.
        disk_bytes: Written at most.
        units: In order.
        unit_peaks: Expected at each, bytes.
        measured: False for a model with a fixed batch, whose needs are not known.
    """

    budget_bytes: Count
    base_bytes: Count
    storage: Literal["memory", "host", "half", "disk", "recompute"]
    planned_batch: Size
    batch_size: Size
    whole_images: Size
    loss_images: Size
    peak_bytes: Count
    disk_bytes: Count
    units: tuple[UnitMemory, ...]
    unit_peaks: tuple[Count, ...]
    measured: Flag = True

    def __str__(self) -> str:
        where = {
            "memory": "activations in memory",
            "host": "activations in the host's memory",
            "half": "activations in the host's memory, in half precision",
            "disk": f"activations on disk, {self.disk_bytes / 2**30:.1f} GiB",
            "recompute": "activations computed again at each use",
        }[self.storage]
        halved = f", {self.planned_batch} before memory ran out" if self.batch_size < self.planned_batch else ""
        if not self.measured:
            return f"memory: not predicted, since the batch is fixed; {where}; {self.batch_size} images at once"
        return (
            f"memory: {self.peak_bytes / 2**30:.1f} of {self.budget_bytes / 2**30:.1f} GiB expected; {where}; "
            f"{self.batch_size} images at once{halved}"
        )
