"""TensorRT's rule written as loops, the way its documentation puts it; shares no code with what it judges."""

from __future__ import annotations

from itertools import product

import numpy as np


def conv_violations(weight: np.ndarray, n: int, m: int) -> tuple[int, int]:
    """`[K, C, *kernel]`: for every k and kernel position, every block of m consecutive c."""
    groups = violations = 0
    for k, *position in product(range(weight.shape[0]), *(range(s) for s in weight.shape[2:])):
        for first in range(0, weight.shape[1], m):
            count = 0
            for c in range(first, first + m):
                if weight[(k, c, *position)] != 0:
                    count += 1
            groups += 1
            violations += count > n
    return groups, violations


def matmul_violations(right: np.ndarray, n: int, m: int) -> tuple[int, int]:
    """`[..., K, N]`, the right operand of a product: for every column, every block of m consecutive rows."""
    groups = violations = 0
    for *batch, column in product(*(range(s) for s in right.shape[:-2]), range(right.shape[-1])):
        for first in range(0, right.shape[-2], m):
            block = [right[(*batch, row, column)] for row in range(first, first + m)]
            groups += 1
            violations += sum(value != 0 for value in block) > n
    return groups, violations


def best_mask(score: np.ndarray, n: int, m: int) -> np.ndarray:
    """`[K, C, *kernel]`: keep the n largest of each block, the lower index on ties."""
    mask = np.zeros(score.shape, dtype=bool)
    for k, *position in product(range(score.shape[0]), *(range(s) for s in score.shape[2:])):
        for first in range(0, score.shape[1], m):
            order = sorted(range(first, first + m), key=lambda c: (-score[(k, c, *position)], c))
            for c in order[:n]:
                mask[(k, c, *position)] = True
    return mask
