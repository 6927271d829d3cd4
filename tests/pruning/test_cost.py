"""What is not measured is extrapolated, and says so in numbers that can be checked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.violations import count_violations
from snowsdeploy.pruning.forecast import cost
from snowsdeploy.pruning.forecast.cost import Terms, Timed
from snowsdeploy.selectors.base import Choice

PATTERN = Pattern(2, 4)


def test_seconds_are_the_sum_of_what_they_grow_with() -> None:
    assert Terms(masks=1, fixed=2, image=0.5, product=0.25, products=3).seconds(100, 10) == 1 + 2 + 50 + 7.5


@pytest.mark.parametrize(
    ("rows", "apart", "seen"), [(128, PATTERN, [128]), (2048, PATTERN, [128, 256]), (2048, None, [2048])]
)
def test_large_layers_are_timed_on_some_rows(
    rows: int, apart: Pattern | None, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def select(name: str, weight: Tensor, moments: Callable[[], Tensor]) -> Choice:
        asked.append(len(weight))
        assert moments().shape == (8, 8)
        return Choice(mask_by_score(weight.abs(), PATTERN))

    def timed(run: Callable[[], Choice]) -> tuple[float, Choice]:
        choice = run()
        return 3.0 + 0.5 * asked[-1], choice  # seconds of the whole layer, and of each row

    monkeypatch.setattr(cost, "timed", timed)
    choose, weight = Timed(select, apart), torch.randn(rows, 8)
    mask = choose("a", weight, lambda: torch.eye(8)).mask
    assert mask.shape == weight.shape
    assert count_violations(weight * mask, PATTERN)[1] == 0
    assert asked == seen
    assert choose.seconds == pytest.approx(3.0 + 0.5 * rows)
    choose("a", weight, lambda: torch.eye(8))
    assert asked == seen  # once
