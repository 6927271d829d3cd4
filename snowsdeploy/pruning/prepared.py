"""Everything that a pruning run knows before it solves: the program on its device, the layers, the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from snowsdeploy.batch import Batch
from snowsdeploy.data.samples import Samples
from snowsdeploy.device import OnDevice, choose_device, wake
from snowsdeploy.distributed import rank, world
from snowsdeploy.errors import UsageError
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.progress import Observer
from snowsdeploy.pruning.checkpoints import Checkpoints
from snowsdeploy.pruning.permute import permute_channels
from snowsdeploy.pruning.plan import make_plan
from snowsdeploy.selectors import SELECTORS
from snowsdeploy.selectors.base import AbstractLossSelector
from snowsdeploy.settings.prune import PruneSettings
from snowsdeploy.settings.resources import ResourceSettings
from snowsdeploy.values import LayerDecision, MemoryPlan, Permutation

S = TypeVar("S", bound=PruneSettings)


@dataclass(frozen=True)
class Prepared:
    """A model and the images that it is pruned on.

    Attributes:
        program: Dense, on the device.
        device: Of the solve.
        pattern: Of the masks.
        decisions: Every layer, and why one stays dense.
        calibration: The images of all processes together.
        permutation: What was done to the order of channels.
    """

    program: Program
    device: torch.device
    pattern: Pattern
    decisions: tuple[LayerDecision, ...]
    calibration: Samples
    permutation: Permutation | None = None

    @property
    def weights(self) -> list[str]:
        """Names of those to prune, in graph order."""
        return [d.weight for d in self.decisions if d.prunable and d.weight]

    def count(self, size: int) -> int:
        """How many batches of a size the images of all processes make."""
        return -(-len(self.calibration) // size)

    def batches(self, size: int) -> Sequence[Batch]:
        """This process' images in batches, on the device when they are asked for."""
        return OnDevice(list(self.calibration.batches(size, slice(rank(), None, world()))), self.device)

    def labels(self, size: int) -> Tensor | None:
        """Their classes, in the same order."""
        if self.calibration.labels is None:
            return None
        parts = torch.from_numpy(self.calibration.labels).split(size)[rank() :: world()]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)

    def permuted(
        self, settings: PruneSettings, memory: MemoryPlan, checkpoints: Checkpoints, observer: Observer
    ) -> Prepared:
        """With channels in the order that the settings ask for, found within the memory that was planned.

        Raises:
            GraphError: The outputs changed.
            NumericsError: An activation is not finite.
        """
        if not settings.permutes:
            return self
        observer.stage("permute", f"channels, by {settings.permute_score}")
        program, permutation = permute_channels(
            self.program,
            self.weights,
            self.pattern,
            self.batches(memory.batch_size),
            score=settings.permute_score,
            seed=settings.seed,
            observer=observer,
            at_once=memory.whole_images,
            checkpoints=checkpoints,
        )
        observer.message(str(permutation))
        return replace(self, program=program, permutation=permutation)


def fitted(settings: S, program: Program) -> S:
    """The settings for a program that takes one number of items only: batches of that size, channels as they are.

    Raises:
        UsageError: A setting needs single items.
    """
    batch = program.signature.batch
    if batch is None:
        return settings
    if issubclass(SELECTORS[settings.selector], AbstractLossSelector):
        raise UsageError(
            "a selector of the loss looks at single items, and the model takes a fixed number of them",
            seen=f"--selector {settings.selector}, {batch} items at once",
            allowed=" or ".join(n for n, kind in SELECTORS.items() if not issubclass(kind, AbstractLossSelector)),
            fix="choose another --selector, such as exchange",
        )
    return settings.model_copy(update={"batch_size": batch, "permute": False})


def prepare(program: Program, samples: Samples, settings: PruneSettings, resources: ResourceSettings) -> Prepared:
    """Put a program on its device and decide which of its layers are pruned.

    Raises:
        UsageError: There is no such device, a name matches no layer, no layer can be pruned, or settings contradict
            each other or the number of images.
    """
    device = choose_device(resources.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # streams, synchronisation and page-locked memory are the current GPU's
        wake(device)
    pattern = Pattern.parse(settings.pattern)
    decisions = decide_layers(ProgramGraph(program), pattern, settings.include, settings.exclude)
    prepared = Prepared(program.on(device), device, pattern, tuple(decisions), samples.remembered())
    make_plan(settings, prepared.count(settings.batch_size))  # says what contradicts itself
    return prepared
