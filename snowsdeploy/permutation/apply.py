"""Carrying permutations out on the weights, and the proof that the model's function has not changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from snowsdeploy.batch import Batch
from snowsdeploy.errors import GraphError
from snowsdeploy.models.fp32 import run_in_fp64
from snowsdeploy.models.program import Program
from snowsdeploy.permutation.channels import Ids
from snowsdeploy.permutation.groups import Group

LIMIT = 1e-5  # relative; sums in another order differ by some 1e-6 in float32, a wrong order by about 1
EXACT_LIMIT = 1e-9  # in float64, where deep models that amplify rounding are looked at again


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
    """Compare the outputs of two programs on images `[batch, C, H, W]`; in FP64 where FP32 shows a difference.

    Returns:
        Their largest relative distance (2-norm) in FP32.

    Raises:
        GraphError: It is above `limit`, and above `EXACT_LIMIT` in FP64.
    """
    worst = _distance(before.run(images), after.run(images))
    if worst > limit and not _same_in_fp64(before, after, images):
        raise GraphError(
            "a permutation of channels changed the model's outputs",
            seen=f"relative error {worst:.1e}",
            allowed=f"at most {limit:.0e}",
            fix="leave out --permute; please report the model's architecture",
        )
    return worst


def _same_in_fp64(before: Program, after: Program, images: Batch) -> bool:
    try:
        return _distance(run_in_fp64(before, images), run_in_fp64(after, images)) <= EXACT_LIMIT
    except Exception:  # an operator without FP64 raises what it likes; then nothing is excused
        return False


def _distance(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """The largest of all outputs of real numbers: indices and truth values jump by rounding."""
    pairs = [(a.double(), b.double()) for a, b in zip(before, after, strict=True) if a.is_floating_point()]
    errors = [float((b - a).norm() / a.norm().clamp_min(1e-300)) for a, b in pairs]
    return max(errors) if all(np.isfinite(errors)) else float("inf")
