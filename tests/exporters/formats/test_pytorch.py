"""The torch format: a program that runs, and weights that say what was pruned."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from snowsdeploy.models.program import Program
from snowsdeploy.models.pt2 import read_pt2
from snowsdeploy_exporters.formats.pytorch import PROGRAM, WEIGHTS, write_torch
from tests.exporters.contents import images_of, make_contents


def test_program_and_weights_are_the_pruned_ones(tiny: Program, tmp_path: Path) -> None:
    contents = make_contents(tiny, tmp_path)
    folder = tmp_path / "torch"
    folder.mkdir()
    write_torch(contents, folder)
    assert {p.name for p in folder.iterdir()} == {PROGRAM, WEIGHTS}
    saved = read_pt2(folder / PROGRAM)
    exported, preprocessing = saved.exported, saved.preprocessing
    assert preprocessing == tiny.preprocessing
    images = images_of(tiny, 3)[0]
    with torch.no_grad():
        assert torch.equal(exported.module()(images), contents.pruned.run(images)[0])
    stored = load_file(folder / WEIGHTS)
    state = contents.pruned.state_dict
    assert stored.keys() == state.keys()
    assert all(torch.equal(stored[name], state[name]) for name in state)


def test_metadata_name_the_pruned_weights(tiny: Program, tmp_path: Path) -> None:
    contents = make_contents(tiny, tmp_path)
    (tmp_path / "torch").mkdir()
    write_torch(contents, tmp_path / "torch")
    with safe_open(tmp_path / "torch" / WEIGHTS, "pt") as stored:
        metadata = stored.metadata()
    assert (metadata["pattern"], metadata["source"]) == ("2:4", "test")
    pruned = json.loads(metadata["pruned"])
    assert [row["name"] for row in pruned] == [d.name for d in contents.prune.pruned]
    for row in pruned:
        zeros = (contents.pruned.state_dict[row["weight"]] == 0).float().mean()
        assert zeros >= 0.5
