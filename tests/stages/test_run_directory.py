"""One run at a time writes a folder; nothing that others put there is removed; a changed run is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from snowsdeploy.data.files import files_digest
from snowsdeploy.data.memory import hold
from snowsdeploy.data.open import open_samples
from snowsdeploy.errors import OutputError
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.checkpoints import Checkpoints
from snowsdeploy.pruning.permute import permute_channels
from snowsdeploy.settings.prune import PruneSettings
from snowsdeploy.stages.job import save_pruned
from snowsdeploy.stages.prune import Pruned, prune
from snowsdeploy.stages.run_directory import RunDirectory
from snowsdeploy.stages.run_files import load_pruned
from snowsdeploy.values import Permutation, Preprocessing, SelectionReport
from tests.nets import TinyCNN, make_program

PATTERN = Pattern.parse("2:4")
REPORT = SelectionReport(settings={}, threshold="group", steps=(), labels="none", seconds=0.0)
HOLD = """
import sys, time
from pathlib import Path
from snowsdeploy.files import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def pruned() -> Pruned:
    torch.manual_seed(0)
    images = hold(torch.randn(6, 3, 8, 8), option="data")
    return prune(make_program(TinyCNN()), images, PruneSettings(solver="none", selector="magnitude"))


def test_two_runs_cannot_both_write(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with run.taken(force=False, resume=False):
        pass
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(OutputError, match="another run is writing"):
            run.require_free(force=True, resume=False)
        with pytest.raises(OutputError, match="another run is writing"), run.taken(force=True, resume=False):
            pass
        other.kill()
    with run.taken(force=True, resume=False):  # a kill leaves no lock
        pass


@pytest.mark.parametrize("how", [{"force": True, "resume": False}, {"force": False, "resume": True}])
@pytest.mark.parametrize("name", ["model.onnx", "report.json", "config.toml"])
def test_results_of_others_are_not_overwritten(tmp_path: Path, how: dict[str, bool], name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="has not written"), RunDirectory(tmp_path).taken(**how):
        pass
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_what_others_put_into_a_run_stays(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with run.taken(force=False, resume=False):
        pass
    mine = [run.layers / "mine.txt", run.activations / "mine.txt", run.activations / "0" / "mine.txt", run.path / "x"]
    ours = [run.layers / f"{'a' * 16}.safetensors", run.layers / "memory.json", run.activations / "0" / "s" / "3.pt"]
    ours += [run.layers / f".{'a' * 16}-k3j4h5g6.safetensors", run.report, run.path / ".report-abcdefgh.json"]
    for path in (*mine, *ours):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    with run.taken(force=True, resume=False):
        pass
    assert all(path.is_file() for path in mine)
    assert not any(path.exists() for path in ours)


def test_stored_solves_that_were_changed_are_not_used(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, "key")
    store.save("a block", {"0": torch.ones(3)}, REPORT)
    assert store.load("a block", SelectionReport) is not None
    (path,) = tmp_path.iterdir()
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
    for tensors, changed in (
        ({"0": torch.ones(3) * 3}, {}),
        ({}, {}),
        ({"0": torch.ones(3)}, {"report": "{}"}),
        ({"0": torch.ones(1, 3)}, {}),
    ):
        save_file(tensors, path, metadata | changed)
        assert store.load("a block", SelectionReport) is None
    for missing in ("report", "digest", "key"):
        save_file({"0": torch.ones(3)}, path, {k: v for k, v in metadata.items() if k != missing})
        assert store.load("a block", SelectionReport) is None


@pytest.mark.parametrize("part", ["weights", "masks", "prune"])
def test_a_run_whose_files_were_changed_is_refused(tmp_path: Path, pruned: Pruned, part: str) -> None:
    run = RunDirectory(tmp_path / "run")
    save_pruned(pruned, run.path)
    load_pruned(run)
    if part == "prune":
        first, second = (d.weight for d in pruned.report.pruned[:2])
        text = run.prune.read_text().replace(f'"{first}"', '"?"').replace(f'"{second}"', f'"{first}"')
        run.prune.write_text(text.replace('"?"', f'"{second}"'))
    else:
        path = getattr(run, part)
        tensors = load_file(path)
        name = next(iter(tensors))
        tensors[name] = tensors[name] * 2 if part == "weights" else ~tensors[name]
        save_file(tensors, path)
    with pytest.raises(OutputError, match="changed since it was made"):
        load_pruned(run)


def test_fingerprints_see_content(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{name}.bmp")
    preprocessing = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    before = open_samples(str(tmp_path), preprocessing).sample(2, 0).identified().info
    pixels = bytearray((tmp_path / "a.bmp").read_bytes())
    pixels[-1] ^= 1
    (tmp_path / "a.bmp").write_bytes(pixels)  # of the same size
    after = open_samples(str(tmp_path), preprocessing).sample(2, 0).identified().info
    assert before.origin == after.origin
    assert before.content != after.content
    assert before.fingerprint != after.fingerprint
    assert after.content in {files_digest([tmp_path / f"{x}.bmp" for x in order]) for order in ("ab", "ba")}


@pytest.mark.parametrize("order", [[0] * 8, [0, 1, 2, 3, 4, 5, 6, 8], [7, 6, 5, 4, 3, 2, 1]])
def test_a_stored_order_that_is_none_is_searched_again(tmp_path: Path, order: list[int]) -> None:
    torch.manual_seed(0)
    program, store = make_program(TinyCNN()), Checkpoints(tmp_path, "key")
    weights = [d.weight for d in decide_layers(ProgramGraph(program), PATTERN) if d.weight and d.prunable]
    batches = [torch.randn(4, 3, 8, 8)]

    def permute() -> Program:
        args = (program, weights, PATTERN, batches)
        return permute_channels(*args, score="inputs", seed=0, observer=NullObserver(), checkpoints=store)[0]

    first = permute().state_dict
    kept = store.load("order of channels", Permutation)
    assert kept is not None
    store.save("order of channels", {name: torch.tensor(order) for name in kept[0]}, kept[1])
    second = permute().state_dict
    assert all(torch.equal(first[name], second[name]) for name in first)
