"""Selectors against direct formulas, in float64."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snowsdeploy.selectors import SELECTORS, select_mask
from snowsdeploy.selectors.exchange import exchange, solve_rows
from snowsdeploy.selectors.sparsegpt import DAMPING, sparsegpt
from snowsdeploy.solver.least_squares import masked_least_squares
from snowsdeploy.sparsity.pattern import Pattern, count_violations


def problem(seed: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, dtype=torch.float64, generator=generator)
    inputs = torch.randn(4 * columns, columns, dtype=torch.float64, generator=generator) @ mix
    return torch.randn(rows, columns, dtype=torch.float64, generator=generator), inputs.T @ inputs


def surgeon(weight: torch.Tensor, gram: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """The sweep written from the optimal brain surgeon's formulas, with a new inverse for every column."""
    columns = len(gram)
    damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(columns, dtype=gram.dtype)
    masks = torch.ones_like(weight, dtype=torch.bool)
    for row, mask in zip(weight.clone(), masks, strict=True):
        for start in range(0, columns, pattern.m):
            cost = []
            for j in range(start, start + pattern.m):
                inverse = torch.linalg.inv(damped[j:, j:])
                cost.append(float(row[j] ** 2 / inverse[0, 0]))
            for j in sorted(range(pattern.m), key=cost.__getitem__)[: pattern.m - pattern.n]:
                mask[start + j] = False
            for j in range(start, start + pattern.m):
                if not mask[j]:
                    inverse = torch.linalg.inv(damped[j:, j:])
                    row[j:] -= row[j] / inverse[0, 0] * inverse[0]
    return masks


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10**6), pattern=st.sampled_from([Pattern(2, 4), Pattern(1, 4), Pattern(3, 6), Pattern(1, 2)])
)
def test_the_sweep_is_the_optimal_brain_surgeons(seed: int, pattern: Pattern) -> None:
    weight, gram = problem(seed, 3, 12)
    assert torch.equal(sparsegpt(weight, gram, pattern), surgeon(weight, gram, pattern))


def test_its_masks_fit_correlated_inputs_better_than_magnitude() -> None:
    weight, gram = problem(0, 32, 64)
    losses = {}
    for name, selector in SELECTORS.items():
        mask = selector(weight, gram, Pattern(2, 4))
        error = weight - masked_least_squares(gram, weight @ gram, mask)
        losses[name] = float(((error @ gram) * error).sum())
    assert losses["sparsegpt"] < 0.9 * losses["magnitude"]
    assert losses["exchange"] < 0.95 * losses["sparsegpt"]


def errors(weight: torch.Tensor, damped: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    rest = weight - masked_least_squares(damped, weight @ damped, mask)
    return ((rest @ damped) * rest).sum(1)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), pattern=st.sampled_from([Pattern(2, 4), Pattern(1, 4), Pattern(3, 6)]))
def test_no_exchange_is_better_than_the_one_taken(seed: int, pattern: Pattern) -> None:
    weight, damped = problem(seed, 2, 12)
    mask = sparsegpt(weight, damped, pattern)
    rows = solve_rows(weight @ damped, damped, mask, pattern.m)
    change, p, q = rows.best()
    before = errors(weight, damped, mask)
    found = torch.full((2,), torch.inf, dtype=torch.float64)
    for row, start, i, j in product(range(2), range(0, 12, pattern.m), range(pattern.m), range(pattern.m)):
        if mask[row, start + i] and not mask[row, start + j]:
            trial = mask.clone()
            trial[row, [start + i, start + j]] = torch.tensor([False, True])
            found[row] = torch.minimum(found[row], errors(weight, damped, trial)[row] - before[row])
    scale = float((weight @ damped * weight).sum())
    torch.testing.assert_close(change, found, rtol=1e-6, atol=1e-10 * scale)

    rows.take_out(damped, p)
    rows.put_in(damped, q)
    fresh = solve_rows(weight @ damped, damped, rows.kept.flatten(1), pattern.m)
    pruned = ~rows.kept.flatten(1)
    for name in ("inverse", "weight", "residual", "reach"):
        value, expected = getattr(rows, name), getattr(fresh, name)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max() + scale))
    torch.testing.assert_close(rows.schur[pruned], fresh.schur[pruned], rtol=1e-6, atol=1e-9 * scale)


@pytest.mark.parametrize("columns", [12, 40])
def test_exchanges_never_raise_a_rows_error(columns: int) -> None:
    weight, gram = problem(columns, 40, columns)
    damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(columns, dtype=gram.dtype)
    before = errors(weight, damped, sparsegpt(weight, gram, Pattern(2, 4)))
    after = errors(weight, damped, exchange(weight, gram, Pattern(2, 4), block=18))  # the last block is narrower
    assert (after <= before * (1 + 1e-9)).all()
    assert after.sum() < before.sum()


@pytest.mark.parametrize("name", list(SELECTORS))
@pytest.mark.parametrize("shape", [(6, 16), (5, 8, 3), (4, 8, 3, 2)])
def test_masks_have_their_groups_where_the_hardware_has_them(name: str, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    _, gram = problem(1, 1, weight[0].numel())
    mask = select_mask(SELECTORS[name], weight, gram, Pattern(2, 4))
    groups, violations = count_violations(mask.float(), Pattern(2, 4))
    assert violations == 0
    assert int(mask.sum()) == 2 * groups


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    weight, gram = problem(2, 4, 8)
    gram[3], gram[:, 3] = 0, 0
    mask = sparsegpt(weight, gram, Pattern(2, 4))
    assert not mask[:, 3].any()


@pytest.mark.parametrize("name", list(SELECTORS))
@pytest.mark.parametrize("columns", [8, 192])
def test_unstructured_masks_have_the_share_exactly(name: str, columns: int) -> None:
    pattern = Pattern.parse("83%")
    weight, gram = problem(3, 5, columns)
    mask = select_mask(SELECTORS[name], weight, gram, pattern)
    assert int(mask.sum()) == pattern.kept(mask.numel())
