"""Settings of selectors that would divide by zero, or run for ever, are refused by name."""

from __future__ import annotations

import pytest
import torch

from snowsdeploy.errors import UsageError
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.violations import count_violations
from snowsdeploy.selectors import make_selector
from snowsdeploy.selectors.base import AbstractSweep


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        *[(n, "block", v) for n in ("sparsegpt", "exchange", "woodfisher") for v in (0, -1)],
        *[(n, "damping", v) for n in ("sparsegpt", "obc", "woodfisher") for v in (0, -1, "inf", "nan")],
        *[(n, "penalty", v) for n in ("lm", "qm") for v in (-1, "inf")],
    ],
)
def test_a_value_out_of_range_is_refused(name: str, setting: str, value: object) -> None:
    with pytest.raises(UsageError, match="--selector-arg has a value that is not allowed") as refused:
        make_selector(name, {setting: value})
    assert setting in str(refused.value)


@pytest.mark.parametrize("name", ["sparsegpt", "exchange"])
@pytest.mark.parametrize("block", [1, 3, 5, 256])
@pytest.mark.parametrize("pattern", ["2:4", "4:8", "3:5", "50%"])
def test_any_other_block_gives_the_pattern(name: str, block: int, pattern: str) -> None:
    selector, wanted = make_selector(name, {"block": block}), Pattern.parse(pattern)
    assert isinstance(selector, AbstractSweep)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 40, dtype=torch.float64, generator=generator)
    weight = torch.randn(6, 40, dtype=torch.float64, generator=generator)
    mask = selector.choose(weight, x.T @ x, wanted).mask
    if wanted.sparsity is None:
        assert count_violations(mask.view(6, 40, 1, 1).numpy(), wanted)[1] == 0
    assert (
        int(mask.sum()) == wanted.kept(mask.numel())
        if wanted.sparsity
        else int(mask.sum()) * wanted.m == 240 * wanted.n
    )
