"""Groups of real checkpoints: any order leaves their outputs as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.models import DEIT_TINY, RESNET20
from snowsdeploy.models.fp32 import run_in_fp64
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.permutation.apply import permute_program
from snowsdeploy.permutation.groups import find_groups
from snowsdeploy.settings.model import ModelSettings
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages.program import load_program


@pytest.mark.parametrize(
    ("options", "channels", "stream"),
    [(RESNET20, [16] * 5 + [32] * 4 + [64] * 3, 9), (DEIT_TINY, [64] * 36 + [192] + [768] * 12, 24)],
    ids=["resnet20", "deit-tiny"],
)
def test_any_order_leaves_a_real_model_as_it_was(
    monkeypatch: pytest.MonkeyPatch, real_data: Path, options: dict[str, object], channels: list[int], stream: int
) -> None:
    monkeypatch.chdir(real_data)
    model = read_settings(ModelSettings, {k: v for k, v in options.items() if "data" not in k})
    program = load_program(model, str(options["data"]))
    graph = ProgramGraph(program)
    weights = [d.weight for d in decide_layers(graph, Pattern(2, 4)) if d.prunable and d.weight]
    groups = find_groups(graph, weights, 4)
    assert not groups.refused
    assert sorted(g.channels for g in groups.groups) == channels
    assert max(len(g.consumers) for g in groups.groups) == stream
    rng = np.random.default_rng(0)
    permuted = permute_program(program, [(g, rng.permutation(g.channels)) for g in groups.groups])
    images = torch.randn(2, *program.preprocessing.input_size, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(program.run(images)[0], permuted.run(images)[0])
    (before,), (after,) = run_in_fp64(program, images), run_in_fp64(permuted, images)
    assert float((after - before).norm() / before.norm()) < 1e-13
