"""Random patterns and weights."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from snowsdeploy.patterns.pattern import Pattern

relaxed = settings(deadline=None)  # the first call of an operator is slow

PATTERNS = (Pattern(2, 4), Pattern(1, 4), Pattern(1, 2), Pattern(4, 8), Pattern(3, 4), Pattern(2, 3))
KERNELS = ((), (1,), (3,), (1, 1), (1, 3), (3, 1), (3, 3), (2, 1, 3))
patterns = st.sampled_from(PATTERNS)


@st.composite
def weights(draw: st.DrawFn, m: int, kernels: tuple[tuple[int, ...], ...] = KERNELS) -> np.ndarray:
    """`[K, C, *kernel]` float32 of some density; few distinct values, so that ties happen."""
    shape = (draw(st.integers(1, 5)), m * draw(st.integers(1, 3)), *draw(st.sampled_from(kernels)))
    density = draw(st.sampled_from((0.0, 0.1, 0.3, 0.5, 0.8, 1.0)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.choice([-2.0, -1.0, -0.25, 1e-30, 0.5, 3.0], size=shape)
    return np.where(rng.random(shape) < density, values, 0.0).astype(np.float32)
