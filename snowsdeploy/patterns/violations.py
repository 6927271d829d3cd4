"""Counting the groups that break a pattern: NumPy alone, so that a machine without PyTorch can prove a layout."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from snowsdeploy.patterns.pattern import Pattern


def count_violations(values: ArrayLike, pattern: Pattern, axis: int = 1) -> tuple[int, int]:
    """Count groups and the groups with more than `n` non-zeros along `axis`, for a stored tensor of any layout.

    Args:
        values: Weights, or true where one is not zero; any shape whose `axis` is a multiple of `m`.
        pattern: What to count against.
        axis: The reduction axis.

    Returns:
        `(groups, violations)`; an unstructured pattern has one group, the whole tensor.
    """
    nonzero = np.asarray(values) != 0
    if pattern.sparsity is not None:
        return 1, int(np.count_nonzero(nonzero) > pattern.kept(nonzero.size))
    last = np.moveaxis(nonzero, axis, -1)
    groups = last.reshape(*last.shape[:-1], last.shape[-1] // pattern.m, pattern.m)
    violations = groups.sum(-1) > pattern.n
    return violations.size, int(violations.sum())
