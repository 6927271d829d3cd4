"""One unit's reconstruction: gather its window's inputs and targets, warm-start, Newton, keep the best."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.models.graph import evaluate
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.activations import Activations
from snowsdeploy.pruning.gram import gram_matrix
from snowsdeploy.pruning.objective import Curvature, Sample, Support, WindowObjective, block_preconditioner
from snowsdeploy.pruning.schedule import Unit
from snowsdeploy.pruning.windows import Window, cut_window
from snowsdeploy.solver.least_squares import masked_cholesky
from snowsdeploy.solver.newton import NewtonCG

Targets = Literal["dense", "input"]


@dataclass(frozen=True)
class Reconstruction:
    """How a unit is solved."""

    horizon: int
    targets: Targets
    newton: NewtonCG
    curvature: Curvature = "gauss-newton"
    curvature_samples: int | None = None
    ridge: float = 1e-4
    to_block_end: bool = False
