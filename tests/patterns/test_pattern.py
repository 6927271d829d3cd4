from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snowsdeploy.errors import UsageError
from snowsdeploy.patterns.masks import from_groups, mask_by_score, to_groups
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.violations import count_violations
from tests.layout.oracle import best_mask, conv_violations, matmul_violations
from tests.layout.strategies import patterns, relaxed, weights


@pytest.mark.parametrize(("text", "n", "m"), [("2:4", 2, 4), (" 1 : 4 ", 1, 4), ("16:32", 16, 32)])
def test_parse_reads_n_and_m(text: str, n: int, m: int) -> None:
    assert Pattern.parse(text) == Pattern(n, m)
    assert Pattern.parse(str(Pattern(n, m))) == Pattern(n, m)


@pytest.mark.parametrize("text", ["", "2", "2:", "4:4", "4:2", "0:4", "-1:4", "2:4:8", "two:four", "2/4", "1.5:4"])
def test_parse_names_the_option_and_the_value(text: str) -> None:
    with pytest.raises(UsageError, match="--pattern") as caught:
        Pattern.parse(text)
    assert caught.value.seen == text
    assert "2:4" in (caught.value.allowed or "")


@relaxed
@given(st.data(), patterns)
def test_count_violations_is_the_rule_written_as_loops(data: st.DataObject, pattern: Pattern) -> None:
    weight = data.draw(weights(pattern.m))
    assert count_violations(torch.from_numpy(weight), pattern) == conv_violations(weight, pattern.n, pattern.m)


@relaxed
@given(st.data(), patterns)
def test_count_violations_along_another_axis(data: st.DataObject, pattern: Pattern) -> None:
    right = np.ascontiguousarray(data.draw(weights(pattern.m, ((),))).T)  # [K, N]
    expected = matmul_violations(right, pattern.n, pattern.m)
    for axis in (0, -2):
        assert count_violations(torch.from_numpy(right), pattern, axis) == expected


@relaxed
@given(st.data(), patterns)
def test_mask_by_score_keeps_the_best_of_each_block(data: st.DataObject, pattern: Pattern) -> None:
    score = np.abs(data.draw(weights(pattern.m)))
    mask = mask_by_score(torch.from_numpy(score), pattern).numpy()
    np.testing.assert_array_equal(mask, best_mask(score, pattern.n, pattern.m))


@relaxed
@given(st.data(), patterns)
def test_a_masked_weight_holds_the_pattern_and_keeps_n_of_m(data: st.DataObject, pattern: Pattern) -> None:
    weight = data.draw(weights(pattern.m))
    mask = mask_by_score(torch.from_numpy(weight).abs(), pattern)
    assert mask.shape == weight.shape
    assert mask.sum().item() * pattern.m == mask.numel() * pattern.n
    assert conv_violations(np.where(mask.numpy(), weight, 0), pattern.n, pattern.m)[1] == 0


@relaxed
@given(st.data(), patterns)
def test_groups_round_trip(data: st.DataObject, pattern: Pattern) -> None:
    weight = torch.from_numpy(data.draw(weights(pattern.m)))
    groups = to_groups(weight, pattern.m)
    assert groups.shape[-1] == pattern.m
    torch.testing.assert_close(from_groups(groups), weight, rtol=0, atol=0)


def test_groups_of_a_kernel_do_not_run_along_its_flattened_positions() -> None:
    """Two in four along C*R*S, as some tools prune, is not the layout of the hardware."""
    weight = torch.randn(8, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    flat = weight.flatten(1)
    weight = (flat * mask_by_score(flat.abs(), Pattern(2, 4))).reshape(weight.shape)
    assert count_violations(weight, Pattern(2, 4)) == conv_violations(weight.numpy(), 2, 4)
    assert count_violations(weight, Pattern(2, 4))[1] > 0


def test_negative_zero_is_zero_and_nan_is_not() -> None:
    assert count_violations(torch.tensor([[1.0, -0.0, -0.0, 2.0]]), Pattern(2, 4)) == (1, 0)
    assert count_violations(torch.tensor([[1.0, float("nan"), 0.0, 2.0]]), Pattern(2, 4)) == (1, 1)


@given(st.integers(1, 99), st.integers(2, 6), st.integers(2, 9))
def test_unstructured_keeps_the_highest_scores_of_the_layer(percent: int, rows: int, columns: int) -> None:
    pattern = Pattern.parse(f"{percent}%")
    assert Pattern.parse(str(pattern)) == pattern
    score = torch.rand(rows, columns, generator=torch.Generator().manual_seed(percent))
    mask = mask_by_score(score, pattern)
    assert int(mask.sum()) == rows * columns - round(percent / 100 * rows * columns)
    if mask.any() and not mask.all():
        assert score[mask].min() >= score[~mask].max()
    assert count_violations(mask.float(), pattern) == (1, 0)
    assert count_violations(torch.ones(rows, columns), pattern)[1] == int(round(percent / 100 * rows * columns) > 0)


@pytest.mark.parametrize("text", ["0%", "100%", "-5%", "%", "50"])
def test_unstructured_shares_lie_between_the_ends(text: str) -> None:
    with pytest.raises(UsageError, match="--pattern"):
        Pattern.parse(text)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 8, 3, 3)])
def test_a_weight_without_elements_has_no_groups(shape: tuple[int, ...]) -> None:
    assert count_violations(np.zeros(shape), Pattern(2, 4)) == (0, 0)
