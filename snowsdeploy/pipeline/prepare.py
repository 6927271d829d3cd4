"""Everything that a pruning run knows before it solves: the program on its device, the layers, the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from snowsdeploy.artifacts import LayerDecision, MemoryPlan, Permutation
from snowsdeploy.config import RunConfig
from snowsdeploy.data.images import ImageSet
from snowsdeploy.data.open import open_images
from snowsdeploy.device import OnDevice, choose_device
from snowsdeploy.distributed import rank, world
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pipeline.export import require_ends
from snowsdeploy.pipeline.load import load_program
from snowsdeploy.pipeline.permute import permute_channels
from snowsdeploy.progress import Observer
from snowsdeploy.pruning.checkpoints import Checkpoints
from snowsdeploy.sparsity.pattern import Pattern


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
    calibration: ImageSet
    permutation: Permutation | None = None

    @property
    def weights(self) -> list[str]:
        """Names of those to prune, in graph order."""
        return [d.weight for d in self.decisions if d.prunable and d.weight]

    def count(self, size: int) -> int:
        """How many batches of a size the images of all processes make."""
        return -(-len(self.calibration) // size)

    def batches(self, size: int) -> Sequence[Tensor]:
        """This process' images in batches, on the device when they are asked for."""
        return OnDevice(list(self.calibration.batches(size, slice(rank(), None, world()))), self.device)

    def labels(self, size: int) -> Tensor | None:
        """Their classes, in the same order."""
        if self.calibration.labels is None:
            return None
        parts = torch.from_numpy(self.calibration.labels).split(size)[rank() :: world()]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)

    def permuted(self, config: RunConfig, memory: MemoryPlan, checkpoints: Checkpoints, observer: Observer) -> Prepared:
        """With channels in the order that the settings ask for, found within the memory that was planned.

        Raises:
            GraphError: The outputs changed.
            NumericsError: An activation is not finite.
        """
        if not config.permutes:
            return self
        observer.stage("permute", f"channels, by {config.permute_score}")
        program, permutation = permute_channels(
            self.program,
            self.weights,
            self.pattern,
            self.batches(memory.batch_size),
            score=config.permute_score,
            seed=config.seed,
            observer=observer,
            at_once=memory.whole_images,
            checkpoints=checkpoints,
        )
        observer.message(str(permutation))
        return replace(self, program=program, permutation=permutation)


def prepare(config: RunConfig, observer: Observer) -> Prepared:
    """Load the model, decide which layers are pruned, choose the images.

    Raises:
        SnowsDeployError: As `prune_export`.
    """
    device = choose_device(config.device)  # before minutes are spent
    if device.type == "cuda":
        torch.cuda.set_device(device)  # streams, synchronisation and page-locked memory are the current GPU's
    observer.stage("load", config.model)
    torch.manual_seed(config.seed)
    program = load_program(config, config.data)
    require_ends(config, program)
    pattern = Pattern.parse(config.pattern)
    decisions = decide_layers(ProgramGraph(program), pattern, config.include, config.exclude)
    calibration = open_images(config.data, program.preprocessing).sample(config.samples, config.seed)
    if config.eval_data:  # opened now, so that a wrong path is known before minutes are spent
        open_images(config.eval_data, program.preprocessing, option="--eval-data")
    return Prepared(program.on(device), device, pattern, tuple(decisions), calibration)
