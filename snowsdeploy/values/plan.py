"""What a pruning run is expected to cost, before anything is spent."""

from __future__ import annotations

from snowsdeploy.values.base import Artifact
from snowsdeploy.values.memory import MemoryPlan
from snowsdeploy.values.numbers import Count, Number, Seconds, Size


class UnitCost(Artifact):
    """One solve.

    Attributes:
        layers: Solved together.
        seconds: Expected, masks included.
        mask_seconds: Of them, to choose the masks.
        product_seconds: Of one curvature product over the images that it sees.
        products: Expected.
        memory_bytes: Expected at most while it is solved.
        like: The first layer of the unit whose measurement stands for this one; empty where it was measured itself.
    """

    layers: tuple[str, ...]
    seconds: Number
    mask_seconds: Number
    product_seconds: Number
    products: Count
    memory_bytes: Count
    like: str = ""


class RunPlan(Artifact):
    """The pruning stage, from a few measured products.

    Attributes:
        model: As given.
        device: Where.
        images: Calibration images.
        stages: Seconds of what is not a unit's solve: `load`, `permute`, `masks` (chosen before the first solve),
            `sensitivity`, `forward`, `final`.
        units: In order.
        memory: Where activations go.
        disk_bytes: Of the run directory while it runs, at most.
        measured_seconds: What the measurement took.
    """

    model: str
    device: str
    images: Size
    stages: dict[str, Number]
    units: tuple[UnitCost, ...]
    memory: MemoryPlan
    disk_bytes: Count
    measured_seconds: Seconds

    @property
    def seconds(self) -> float:
        """Of the whole pruning stage."""
        return sum(self.stages.values()) + sum(unit.seconds for unit in self.units)
