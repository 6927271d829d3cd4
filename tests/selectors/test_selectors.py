"""Selectors against direct formulas, in float64."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snowsdeploy.errors import UsageError
from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.violations import count_violations
from snowsdeploy.selectors import SELECTORS, make_selector, select_mask
from snowsdeploy.selectors.base import AbstractLossSelector
from snowsdeploy.selectors.exchange import exchange, solve_rows
from snowsdeploy.selectors.magnitude import Magnitude
from snowsdeploy.selectors.obc import OBC
from snowsdeploy.selectors.sparsegpt import DAMPING, SparseGPT, sparsegpt
from snowsdeploy.selectors.taylor import loss_score
from snowsdeploy.selectors.wanda import Wanda
from snowsdeploy.solver.least_squares import masked_least_squares

LAYERS = [name for name, kind in SELECTORS.items() if not issubclass(kind, AbstractLossSelector)]


def problem(seed: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, dtype=torch.float64, generator=generator)
    inputs = torch.randn(4 * columns, columns, dtype=torch.float64, generator=generator) @ mix
    return torch.randn(rows, columns, dtype=torch.float64, generator=generator), inputs.T @ inputs


def surgeon(weight: torch.Tensor, gram: torch.Tensor, pattern: Pattern) -> tuple[torch.Tensor, torch.Tensor]:
    """The sweep written from the optimal brain surgeon's formulas, with a new inverse for every column.

    Masks, and the weights at the end.
    """
    columns = len(gram)
    damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(columns, dtype=gram.dtype)
    masks, moved = torch.ones_like(weight, dtype=torch.bool), weight.clone()
    for row, mask in zip(moved, masks, strict=True):
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
    return masks, moved * masks


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10**6), pattern=st.sampled_from([Pattern(2, 4), Pattern(1, 4), Pattern(3, 6), Pattern(1, 2)])
)
def test_the_sweep_is_the_optimal_brain_surgeons(seed: int, pattern: Pattern) -> None:
    weight, gram = problem(seed, 3, 12)
    mask, moved = surgeon(weight, gram, pattern)
    found = sparsegpt(weight, gram, pattern)
    assert torch.equal(found.mask, mask)
    assert found.weight is not None
    torch.testing.assert_close(found.weight, moved, rtol=1e-6, atol=1e-9)


def test_its_masks_fit_correlated_inputs_better_than_magnitude() -> None:
    weight, gram = problem(0, 32, 64)
    losses = {}
    for name in LAYERS:
        mask = select_mask(make_selector(name, {}), weight, lambda: gram, Pattern(2, 4)).mask
        error = weight - masked_least_squares(gram, weight @ gram, mask)
        losses[name] = float(((error @ gram) * error).sum())
    assert losses["sparsegpt"] < 0.9 * losses["magnitude"]
    assert losses["exchange"] < 0.95 * losses["sparsegpt"]
    assert losses["obc"] < losses["sparsegpt"]


def errors(weight: torch.Tensor, damped: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    rest = weight - masked_least_squares(damped, weight @ damped, mask)
    return ((rest @ damped) * rest).sum(1)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), pattern=st.sampled_from([Pattern(2, 4), Pattern(1, 4), Pattern(3, 6)]))
def test_no_exchange_is_better_than_the_one_taken(seed: int, pattern: Pattern) -> None:
    weight, damped = problem(seed, 2, 12)
    mask = sparsegpt(weight, damped, pattern).mask
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
    before = errors(weight, damped, sparsegpt(weight, gram, Pattern(2, 4)).mask)
    after = errors(weight, damped, exchange(weight, gram, Pattern(2, 4), block=18))  # the last block is narrower
    assert (after <= before * (1 + 1e-9)).all()
    assert after.sum() < before.sum()


def searched(weight: torch.Tensor, damped: torch.Tensor, mask: torch.Tensor, m: int, block: int) -> torch.Tensor:
    """The search in blocks of columns by trying every exchange, each error from what is left of the row."""
    mask, values = mask.clone(), masked_least_squares(damped, weight @ damped, mask)
    for row, kept, value in zip(weight, mask, values, strict=True):
        least = 1e-4 * float((row - value) @ damped @ (row - value))
        for start in range(0, len(row), block):
            inside = torch.arange(start, start + block)
            value[inside] = 0  # the other blocks stand still
            rest = row - value

            def solve(support: torch.Tensor, rest: torch.Tensor = rest) -> tuple[float, torch.Tensor]:
                found = torch.linalg.solve(damped[support][:, support], (rest @ damped)[support])
                error = rest.clone()
                error[support] -= found
                return float(error @ damped @ error), found

            error, _ = solve(inside[kept[inside]])
            while True:
                trials = []
                for p, q in product(inside.tolist(), inside.tolist()):
                    if p // m == q // m and kept[p] and not kept[q]:
                        trial = kept.clone()
                        trial[[p, q]] = torch.tensor([False, True])
                        trials.append((solve(inside[trial[inside]])[0], p, q))
                best, p, q = min(trials)
                if error - best <= least:
                    break
                error, kept[p], kept[q] = best, False, True
            value[inside[kept[inside]]] = solve(inside[kept[inside]])[1]
    return mask


def test_a_block_of_columns_is_searched_on_what_the_blocks_before_it_left() -> None:
    weight, gram = problem(1, 8, 24)
    damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(24, dtype=gram.dtype)
    start = sparsegpt(weight, gram, Pattern(2, 4)).mask
    found = exchange(weight, gram, Pattern(2, 4), block=8)
    assert torch.equal(found, searched(weight, damped, start, 4, 8))
    assert (found != start).view(8, 3, 8).any(2).all(1).any()  # a row has changed in all three blocks


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", [(6, 16), (5, 8, 3), (4, 8, 3, 2)])
def test_masks_have_their_groups_where_the_hardware_has_them(name: str, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    _, gram = problem(1, 1, weight[0].numel())
    mask = select_mask(make_selector(name, {}), weight, lambda: gram, Pattern(2, 4)).mask
    groups, violations = count_violations(mask.float(), Pattern(2, 4))
    assert violations == 0
    assert int(mask.sum()) == 2 * groups


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    weight, gram = problem(2, 4, 8)
    gram[3], gram[:, 3] = 0, 0
    mask = sparsegpt(weight, gram, Pattern(2, 4)).mask
    assert not mask[:, 3].any()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("columns", [8, 192])
def test_unstructured_masks_have_the_share_exactly(name: str, columns: int) -> None:
    pattern = Pattern.parse("83%")
    weight, gram = problem(3, 5, columns)
    mask = select_mask(make_selector(name, {}), weight, lambda: gram, pattern).mask
    assert int(mask.sum()) == pattern.kept(mask.numel())


def input_gram(x: torch.Tensor, kernel: int) -> torch.Tensor:
    rows = torch.nn.functional.unfold(x, kernel).transpose(1, 2).flatten(0, 1)
    return rows.T @ rows


def test_wanda_is_magnitude_times_the_norm_of_the_input_feature() -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(9, 8, dtype=torch.float64, generator=generator)
    weight = torch.randn(3, 8, dtype=torch.float64, generator=generator)
    expected = torch.stack([weight[:, j].abs() * x[:, j].norm() for j in range(8)], 1)
    torch.testing.assert_close(Wanda().score(weight, x.T @ x), expected)


def test_wandas_feature_of_a_convolution_is_a_channel_at_a_kernel_position() -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, generator=generator)
    weight = torch.randn(3, 4, 3, 3, dtype=torch.float64, generator=generator)
    score = torch.empty_like(weight)
    for c, r, s in product(range(4), range(3), range(3)):
        score[:, c, r, s] = weight[:, c, r, s].abs() * x[:, c, r : r + 3, s : s + 3].norm()
    mask = select_mask(Wanda(), weight, lambda: input_gram(x, 3), Pattern(2, 4)).mask
    assert torch.equal(mask, mask_by_score(score, Pattern(2, 4)))


def test_unstructured_wanda_compares_within_output_rows() -> None:
    weight, gram = problem(6, 5, 16)
    weight[0] *= 100
    mask = select_mask(Wanda(), weight, lambda: gram, Pattern.parse("75%"), Wanda.threshold).mask
    assert mask.sum(1).tolist() == [4] * 5


@pytest.mark.parametrize("name", ["sparsegpt", "obc"])
def test_updates_lie_on_the_mask_in_the_convolutions_own_order(name: str) -> None:
    """Groups along channels at each kernel position, written as one linear layer whose columns are in that order."""
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(3, 8, 2, 2, dtype=torch.float64, generator=generator)
    gram = input_gram(torch.randn(6, 8, 5, 5, dtype=torch.float64, generator=generator), 2)
    found = select_mask(make_selector(name, {}), weight, lambda: gram, Pattern(2, 4))
    order = torch.arange(32).view(8, 2, 2).permute(1, 2, 0).flatten()
    flat, reordered = weight.permute(0, 2, 3, 1).flatten(1), gram[order][:, order]
    plain = select_mask(make_selector(name, {}), flat, lambda: reordered, Pattern(2, 4))
    assert found.weight is not None
    assert plain.weight is not None
    assert torch.equal(found.mask, plain.mask.view(3, 2, 2, 8).permute(0, 3, 1, 2))
    torch.testing.assert_close(found.weight, plain.weight.view(3, 2, 2, 8).permute(0, 3, 1, 2))
    assert not found.weight[~found.mask].any()


def greedy(row: torch.Tensor, damped: torch.Tensor, pattern: Pattern, count: int) -> tuple[list[int], list[float]]:
    """The surgeon one weight at a time: the least-squares error of every candidate, solved anew."""
    left, order, costs = list(range(len(row))), [], []
    while len(order) < count:
        found = []
        for p in left:
            group = [q for q in order if q // pattern.m == p // pattern.m]
            if pattern.sparsity is None and len(group) == pattern.m - pattern.n:
                continue
            mask = torch.tensor([[q in left and q != p for q in range(len(row))]])
            found.append((float(errors(row.unsqueeze(0), damped, mask)), p))
        cost, p = min(found)
        left.remove(p)
        order.append(p)
        costs.append(cost)
    return order, [b - a for a, b in zip([0.0, *costs], costs, strict=False)]


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6), pattern=st.sampled_from([Pattern(2, 4), Pattern(1, 4), Pattern(1, 2)]))
def test_obc_is_the_surgeon_one_weight_at_a_time(seed: int, pattern: Pattern) -> None:
    weight, gram = problem(seed, 2, 8)
    damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(8, dtype=gram.dtype)
    found = OBC().choose(weight, gram, pattern)
    for row, mask in zip(weight, found.mask, strict=True):
        order, _ = greedy(row, damped, pattern, 8 * (pattern.m - pattern.n) // pattern.m)
        assert sorted(order) == (~mask).nonzero().flatten().tolist()
    assert found.weight is not None
    assert not found.weight[~found.mask].any()
    expected = errors(weight, damped, found.mask)
    rest = weight - found.weight
    torch.testing.assert_close(((rest @ damped) * rest).sum(1), expected)


@pytest.mark.parametrize("damping", [1e-3, 10.0])
def test_obcs_damping_is_its_own(damping: float) -> None:
    weight, gram = problem(5, 6, 8)
    damped = gram + damping * gram.diagonal().mean() * torch.eye(8, dtype=gram.dtype)
    found = OBC(damping=damping).choose(weight, gram, Pattern(2, 4))
    for row, kept in zip(weight, found.mask, strict=True):
        assert sorted(greedy(row, damped, Pattern(2, 4), 4)[0]) == (~kept).nonzero().flatten().tolist()
    assert found.weight is not None
    for row, kept, value in zip(weight, found.mask, found.weight, strict=True):
        torch.testing.assert_close(value[kept], torch.linalg.solve(damped[kept][:, kept], (row @ damped)[kept]))
    other = OBC(damping=1.0).choose(weight, gram, Pattern(2, 4))
    assert not torch.equal(found.mask, other.mask)


def test_unstructured_obc_takes_the_row_whose_next_weight_is_cheapest() -> None:
    weight, gram = problem(8, 3, 8)
    weight[1] *= 0.3
    pattern = Pattern.parse("58%")
    damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(8, dtype=gram.dtype)
    paths = [greedy(row, damped, pattern, 8) for row in weight]
    mask, at = torch.ones(3, 8, dtype=torch.bool), [0, 0, 0]
    for _ in range(24 - pattern.kept(24)):
        row = min((r for r in range(3) if at[r] < 8), key=lambda r: paths[r][1][at[r]])
        mask[row, paths[row][0][at[row]]] = False
        at[row] += 1
    assert torch.equal(OBC().choose(weight, gram, pattern).mask, mask)


@pytest.mark.parametrize(("first", "second"), [(True, False), (True, True), (False, True)])
def test_loss_scores_are_the_formula(first: bool, second: bool) -> None:
    w, g, d = (torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in range(3))
    score = loss_score(w, g if first else None, d.square() if second else None, 0.1)
    for i, j in product(range(4), range(4)):
        change = -g[i, j] * w[i, j] * first + d[i, j] ** 2 * w[i, j] ** 2 / 2 * second
        assert float(score[i, j]) == pytest.approx(abs(float(change)) + 0.1 * float(w[i, j]) ** 2 / 2)


def test_a_selectors_settings_are_checked() -> None:
    assert make_selector("sparsegpt", {"damping": 0.1}) == SparseGPT(damping=0.1)
    assert make_selector("magnitude", {}) == Magnitude()
    with pytest.raises(UsageError, match="--selector is not known") as caught:
        make_selector("oracle", {})
    assert "woodfisher" in str(caught.value.allowed)
    with pytest.raises(UsageError, match="is not a setting of woodfisher") as caught:
        make_selector("woodfisher", {"gradient": 3})
    assert "gradients=1000" in str(caught.value.allowed)
    with pytest.raises(UsageError, match="has a value that is not allowed") as caught:
        make_selector("woodfisher", {"damping": -1})
    assert "damping=-1" in str(caught.value.seen)
