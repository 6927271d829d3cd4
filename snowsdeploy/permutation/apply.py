"""Carrying permutations out on the weights, and the proof that the model's function has not changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from snowsdeploy.batch import Batch
from snowsdeploy.errors import GraphError
from snowsdeploy.models.program import Program
from snowsdeploy.permutation.channels import Ids
from snowsdeploy.permutation.groups import Group

LIMIT = 1e-5  # relative; sums in another order differ by some 1e-6 in float32, a wrong order by about 1


def permute_program(program: Program, orders: Sequence[tuple[Group, Ids]]) -> Program:
    """The program with its channels in another order: no node changes, weights alone.

    Args:
        program: Stays as it is.
        orders: For each group the old channel at each new place, `[channels]`.
    """
    gathers: dict[tuple[str, int], Ids] = {}
    state = program.state_dict
    for group, order in orders:
        for member in group.members:
            size = state[member.name].shape[member.axis]
            gather = gathers.setdefault((member.name, member.axis), np.arange(size))
            gather[member.positions] = member.positions[order]
    changed: dict[str, Tensor] = {}
    for (name, axis), gather in gathers.items():
        source = changed.get(name, state[name].detach())
        changed[name] = source.index_select(axis, torch.from_numpy(gather).to(source.device))
    return program.with_weights(changed)


def require_same_function(before: Program, after: Program, images: Batch, limit: float = LIMIT) -> float:
    """Compare the outputs of two programs on images `[batch, C, H, W]`.

    Returns:
        Their largest relative distance (2-norm).

    Raises:
        GraphError: It is above `limit`.
    """
    pairs = zip(before.run(images), after.run(images), strict=True)
    real = [(a, b) for a, b in pairs if a.is_floating_point()]  # indices and truth values jump by rounding
    errors = [float((b - a).double().norm() / a.double().norm().clamp_min(1e-300)) for a, b in real]
    worst = max(errors) if all(np.isfinite(errors)) else float("inf")
    if worst > limit:
        raise GraphError(
            "a permutation of channels changed the model's outputs",
            seen=f"relative error {worst:.1e}",
            allowed=f"at most {limit:.0e}",
            fix="leave out --permute; please report the model's architecture",
        )
    return worst
