"""What scores are compared across, and the path of sparsity."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.threshold import masks_by_scores, sparsity_path
from snowsdeploy.patterns.violations import count_violations
from tests.layout.strategies import patterns, relaxed, weights


def scores(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"low": torch.rand(4, 8, generator=generator), "high": 1 + torch.rand(6, 4, 3, 3, generator=generator)}


def test_a_global_threshold_keeps_the_highest_of_all_layers() -> None:
    found, pattern = scores(), Pattern.parse("70%")
    masks = masks_by_scores(found, pattern, "global")
    kept = torch.cat([s[masks[n]] for n, s in found.items()])
    lost = torch.cat([s[~masks[n]] for n, s in found.items()])
    assert len(kept) == pattern.kept(32 + 216)
    assert kept.min() >= lost.max()
    assert not masks["low"].any()


@pytest.mark.parametrize("cap", [0.5, 0.9, 0.99])
def test_the_cap_leaves_every_layer_its_best_weights(cap: float) -> None:
    found, pattern = scores(), Pattern.parse("40%")
    masks = masks_by_scores(found, pattern, "global", cap)
    assert int(masks["low"].sum()) == 32 - int(cap * 32)
    assert found["low"][masks["low"]].min() > found["low"][~masks["low"]].max()
    assert sum(int(m.sum()) for m in masks.values()) == pattern.kept(32 + 216)


def test_rows_and_layers_have_the_share_each() -> None:
    found, pattern = scores(), Pattern.parse("75%")
    for name, mask in masks_by_scores(found, pattern, "row").items():
        assert mask.flatten(1).sum(1).tolist() == [pattern.kept(found[name][0].numel())] * len(mask)
    for name, mask in masks_by_scores(found, pattern, "layer").items():
        assert int(mask.sum()) == pattern.kept(found[name].numel())


def test_rounding_of_rows_adds_up_to_the_layers() -> None:
    pattern = Pattern.parse("70%")
    mask = masks_by_scores(scores(), pattern, "row")["low"]
    assert int(mask.sum()) == pattern.kept(32)
    assert set(mask.sum(1).tolist()) <= {2, 3}


@relaxed
@given(data=st.data(), pattern=patterns, threshold=st.sampled_from(["row", "layer", "global"]))
def test_groups_hold_whatever_the_threshold(data: st.DataObject, pattern: Pattern, threshold: str) -> None:
    score = torch.from_numpy(data.draw(weights(pattern.m)))
    mask = masks_by_scores({"w": score}, pattern, threshold)["w"]
    groups, violations = count_violations(mask, pattern)
    assert violations == 0
    assert int(mask.sum()) == groups * pattern.n


@pytest.mark.parametrize("steps", [1, 2, 14, 140])
@pytest.mark.parametrize("share", ["50%", "90%", "98.5%"])
def test_the_kept_share_falls_by_one_factor_and_ends_at_the_target(steps: int, share: str) -> None:
    path = sparsity_path(Pattern.parse(share), steps)
    assert len(path) == steps
    assert path[-1] == Pattern.parse(share)
    kept = [1.0, *(1 - (p.sparsity or 0) for p in path)]
    ratios = [b / a for a, b in pairwise(kept)]
    assert ratios == pytest.approx([kept[-1] ** (1 / steps)] * steps)


@pytest.mark.parametrize(
    ("pattern", "steps", "path"),
    [
        ("2:4", 1, ["2:4"]),
        ("2:4", 2, ["3:4", "2:4"]),
        ("2:4", 14, ["3:4", "2:4"]),
        ("1:4", 2, ["2:4", "1:4"]),
        ("1:4", 3, ["3:4", "2:4", "1:4"]),
        ("2:8", 4, ["6:8", "5:8", "3:8", "2:8"]),
    ],
)
def test_groups_lose_weights_step_by_step(pattern: str, steps: int, path: list[str]) -> None:
    assert [str(p) for p in sparsity_path(Pattern.parse(pattern), steps)] == path
