from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snowsdeploy.layout.evidence import inspect_tensors
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.stages.inspect import inspect_file
from tests.layout.oracle import conv_violations
from tests.layout.strategies import patterns, relaxed, weights

FILE = Path("model.pt")


@relaxed
@given(data=st.data(), pattern=patterns)
def test_checkpoint_weights_follow_the_rule(data: st.DataObject, pattern: Pattern) -> None:
    values = {name: data.draw(weights(pattern.m, ((), (1,), (1, 3), (3, 3)))) for name in ("a.weight", "b.weight")}
    evidence = inspect_tensors(((k, v != 0) for k, v in values.items()), FILE, pattern)
    assert [row.name for row in evidence.layers] == ["a", "b"]
    covered = 0
    for row, value in zip(evidence.layers, values.values(), strict=True):
        groups, violations = conv_violations(value, pattern.n, pattern.m)
        assert (row.groups, row.violations, row.layout_valid) == (groups, violations, violations == 0)
        assert row.axis == 1
        covered += value.size * (violations == 0)
    assert evidence.weights_covered == covered
    assert evidence.weights_total == sum(v.size for v in values.values())


def test_only_weights_of_layers_are_listed() -> None:
    tensors = {
        "conv.weight": np.zeros((8, 8, 3, 3), bool),
        "conv.bias": np.zeros(8, bool),
        "norm.weight": np.ones(8, bool),
        "norm.running_mean": np.zeros(8, bool),
        "pos_embed": np.zeros((1, 4, 8), bool),
        "attn.in_proj_weight": np.zeros((24, 8), bool),
    }
    rows = inspect_tensors(tensors.items(), FILE, Pattern(2, 4)).layers
    assert [(row.name, row.tensor, row.op) for row in rows] == [
        ("conv", "conv.weight", "conv"),
        ("attn.in_proj_weight", "attn.in_proj_weight", "linear"),
    ]


def test_a_stem_and_an_empty_weight_are_not_valid() -> None:
    tensors = {"stem.weight": np.zeros((8, 3, 7, 7), bool), "none.weight": np.zeros((8, 0), bool)}
    stem, none = inspect_tensors(tensors.items(), FILE, Pattern(2, 4)).layers
    assert (stem.layout_valid, none.layout_valid) == (False, False)
    assert "3 values along the reduction axis" in stem.note
    assert none.zeros == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.float8_e4m3fn])
def test_stored_types(dtype: torch.dtype, tmp_path: Path) -> None:
    pruned = torch.from_numpy(np.array([[1, 0, 0, 1], [0, 1, 1, 1]], np.float32)).to(dtype)
    torch.save({"a.weight": pruned}, tmp_path / "model.pt")
    row = inspect_file(tmp_path / "model.pt", Pattern(2, 4)).layers[0]
    assert (row.groups, row.violations) == (2, 1)
