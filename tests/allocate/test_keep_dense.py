"""The fewest layers to keep dense: against brute force, in a run whose bad layers are known by construction."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from snowsdeploy.allocate.fewest import fewest_that_pass
from snowsdeploy.allocate.keep_dense import REASON
from snowsdeploy.errors import DataError, OutputError, UsageError
from snowsdeploy.progress import NullObserver
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.read import read_settings
from snowsdeploy.settings.runtime import RuntimeSettings
from snowsdeploy.stages.debug import run_debug_accuracy, run_debug_parity
from snowsdeploy.stages.job import run_main_job, run_prune
from snowsdeploy.stages.run_directory import RunDirectory
from snowsdeploy.stages.run_files import load_pruned
from snowsdeploy.values import AccuracyCost, Divergence, PruneReport, Report
from snowsdeploy_exporters import OnnxExporter

# Blocks of a residual net whose input is gated: channels 0 and 1 of every four are always zero. Where those have the
# large weights, magnitude keeps them, and the block's whole effect is lost; the other blocks lose nothing.
FACTORY = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, strength, bad):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1, bias=False)
        dead = torch.arange(8) % 4 < 2
        self.register_buffer("gate", (~dead).float().view(1, 8, 1, 1))
        with torch.no_grad():
            self.conv.weight.normal_(0, strength)
            self.conv.weight[:, dead] = 50.0 if bad else 0.0

    def forward(self, x):
        return x + self.conv(torch.relu(x) * self.gate)


def build(bad=(2,), strengths=(1.0, 1.0, 1.0, 1.0)):
    torch.manual_seed(0)
    blocks = [Block(s, i in bad) for i, s in enumerate(strengths)]
    return nn.Sequential(nn.Conv2d(3, 8, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module, and images that `label` gives the dense model's own classes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gated_model_for_test.py").write_text(FACTORY)
    (tmp_path / "policy.toml").write_text("[gate]\nmax_drop = 3\nmin_coverage = 0.1\n")
    return tmp_path


def label(arguments: dict[str, object]) -> None:
    """Write both data sets: the dense model is always right on them."""
    scope: dict[str, Callable[..., torch.nn.Module]] = {}
    exec(FACTORY, scope)
    model = scope["build"](**arguments).eval()
    rng = np.random.default_rng(0)
    for name, count in (("calibration", 64), ("test", 200)):
        colour, noise = rng.integers(0, 200, (count, 1, 1, 3)), rng.integers(0, 56, (count, 6, 6, 3))
        pixels = (colour + noise).astype(np.uint8)
        x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
        with torch.no_grad():
            np.savez(f"{name}.npz", x=pixels, y=model(x).argmax(1).numpy())


def settings(folder: Path, arguments: dict[str, object], **options: object) -> MainJob:
    values: dict[str, object] = {
        "model": "gated_model_for_test:build",
        "model_arg": arguments,
        "data": "calibration.npz",
        "eval_data": "test.npz",
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
        "selector": "magnitude",
        "effort": "fast",
        "policy": folder / "policy.toml",
        "keep_dense_until_gate": True,
        "latency_batch": (1,),
        "latency_runs": 5,
        "out": folder / "run",
    }
    return read_settings(MainJob, values | options)


def test_the_one_bad_layer_is_restored_alone_and_the_gate_passes(folder: Path) -> None:
    label({})
    report = run_main_job(settings(folder, {}), OnnxExporter())
    assert [d.name for d in report.prune.decisions if d.reason == REASON] == ["3.conv"]
    assert [d.name for d in report.prune.pruned] == ["1.conv", "2.conv", "4.conv"]
    assert report.verdict
    evidence = report.variants[0].sparsity
    assert evidence is not None
    assert set(evidence.expected) == {"1.conv", "2.conv", "4.conv"}
    (note,) = [n for n in report.prune.notes if n.startswith("kept dense for the gate: 3.conv")]
    assert "slightly optimistic" in note
    assert "choices were judged on test.npz" in note
    run = RunDirectory(folder / "run")
    loaded = load_pruned(run)
    dense, pruned = loaded.dense, loaded.sparse
    assert loaded.report == report.prune
    assert torch.equal(dense.state_dict["3.conv.weight"], pruned.state_dict["3.conv.weight"])
    found = run_debug_accuracy(folder / "run", None, GatePolicy(max_drop=3), NullObserver())
    assert [row.layers for row in found.units if "3.conv" in row.layers] == []
    assert found.suggestion is not None
    assert found.suggestion.outcome == "passes"


def test_accuracy_names_the_bad_layer_first(folder: Path) -> None:
    label({})
    run_prune(settings(folder, {}, keep_dense_until_gate=False))
    before = {p.name: p.read_bytes() for p in (folder / "run").iterdir()}
    found = run_debug_accuracy(folder / "run", 40, GatePolicy(max_drop=3, min_coverage=0.1), NullObserver())
    assert found.units[0].layers == ("3.conv",)
    assert found.units[0].cost > 10 * abs(found.units[1].cost)
    assert found.units[0].cost == pytest.approx(found.pruned.value - found.units[0].restored.value)
    assert sum(row.share for row in found.units) == pytest.approx(1)
    assert found.images == 40
    assert found.suggestion is not None
    assert found.suggestion.layers == ("3.conv",)
    assert AccuracyCost.model_validate_json(found.model_dump_json()) == found
    assert {p.name: p.read_bytes() for p in (folder / "run").iterdir()} == before


def test_a_run_that_passes_restores_nothing_and_one_that_cannot_says_so(folder: Path) -> None:
    label({"bad": ()})
    passing = run_prune(settings(folder, {"bad": ()})).report
    assert len(passing.pruned) == 4
    assert any("nothing, the accuracy rules pass" in note for note in passing.notes)
    label({})
    (folder / "policy.toml").write_text("[gate]\nmax_drop = 3\nmin_coverage = 0.9\n")
    thin = run_prune(settings(folder, {}, force=True)).report
    assert len(thin.pruned) == 4
    assert any("3.conv would have to be, which leaves" in note for note in thin.notes)
    np.savez("test.npz", x=np.load("test.npz")["x"], y=(np.load("test.npz")["y"] + 1) % 6)
    (folder / "policy.toml").write_text("[gate]\nmin.top1 = 0.9\n")
    hopeless = run_prune(settings(folder, {}, force=True)).report
    assert len(hopeless.pruned) == 4
    assert any("even with all layers dense the rules fail" in note for note in hopeless.notes)


@pytest.mark.parametrize(
    ("strengths", "points"),
    [((1.0, 0.02, 1.0, 0.05), 6), ((0.03, 0.3, 0.03, 0.2), 6), ((0.03, 0.3, 0.03, 0.2), 3), ((0.3,) * 4, 3)],
)
def test_the_number_is_that_of_brute_force(folder: Path, strengths: tuple[float, ...], points: int) -> None:
    (folder / "policy.toml").write_text(f"[gate]\nmax_drop = {points}\nmin_coverage = 0.05\n")
    needed = 1 - points / 100 - 1e-9
    arguments: dict[str, object] = {"bad": (0, 1, 2, 3), "strengths": strengths}
    label(arguments)
    report = run_prune(settings(folder, arguments, keep_dense_until_gate=False)).report
    loaded = load_pruned(RunDirectory(folder / "run"))
    dense, pruned = loaded.dense, loaded.sparse
    names = [f"{d.name}.weight" for d in report.pruned]
    stored = np.load("test.npz")
    images = (torch.from_numpy(stored["x"]).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25

    def right(back: tuple[str, ...]) -> float:
        program = pruned.with_weights({n: dense.state_dict[n] for n in back})
        return float((program.run(images)[0].argmax(1).numpy() == stored["y"]).mean())

    fewest = next(k for k in range(5) for chosen in combinations(names, k) if right(chosen) >= needed)
    kept = run_prune(settings(folder, arguments, force=True)).report
    restored = [d.name for d in kept.decisions if d.reason == REASON]
    if fewest == len(names):  # then nothing would be pruned
        assert not restored
    else:
        assert len(restored) == fewest
        assert right(tuple(f"{name}.weight" for name in restored)) >= needed


@pytest.mark.parametrize("seed", range(30))
def test_what_is_found_was_checked_even_where_more_is_not_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = {frozenset(c): bool(rng.random() < 0.4) for k in range(6) for c in combinations(range(5), k)}
    table[frozenset(range(5))] = True
    asked: list[frozenset[int]] = []

    def passes(chosen: frozenset[int]) -> bool:
        asked.append(chosen)
        return table[chosen]

    found = fewest_that_pass(range(5), passes)
    assert found is not None
    assert table[frozenset(found)]
    assert frozenset(found) in asked
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("seed", range(30))
def test_where_more_is_better_no_candidate_can_be_left_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gains, limit = rng.random(6), 3 * rng.random()  # in any order, not the most useful first

    def passes(chosen: frozenset[int]) -> bool:
        return sum(gains[i] for i in chosen) >= limit

    found = fewest_that_pass(range(6), passes)
    if found is None:
        assert gains.sum() < limit
    else:
        assert passes(frozenset(found))
        assert not any(passes(frozenset(found) - {one}) for one in found)


def test_with_additive_gains_of_equal_candidates_it_is_the_fewest() -> None:
    for seed in range(30):
        gains = sorted(np.random.default_rng(seed).random(6), reverse=True)
        limit = 0.6 * sum(gains)
        found = fewest_that_pass(range(6), lambda chosen: sum(gains[i] for i in chosen) >= limit)  # noqa: B023
        fewest = next(k for k in range(7) if any(sum(c) >= limit for c in combinations(gains, k)))
        assert found is not None
        assert len(found) == fewest
    assert fewest_that_pass(range(3), lambda chosen: False) is None
    assert fewest_that_pass(range(3), lambda chosen: True) == ()


def test_an_interrupted_search_resumes_without_solving_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label({})
    whole = run_main_job(settings(folder, {}, out=folder / "whole"), OnnxExporter())

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(import_module("snowsdeploy.stages.job"), "keep_dense", killed)
        with pytest.raises(KeyboardInterrupt):
            run_main_job(settings(folder, {}), OnnxExporter())
    with monkeypatch.context() as patch:
        patch.setattr("snowsdeploy.pruning.solve.reconstruct.Reconstruction.solve", killed)
        resumed = run_main_job(settings(folder, {}, resume=True), OnnxExporter())
    assert resumed.variants[0].sparse.sha256 == whole.variants[0].sparse.sha256
    assert resumed.prune.decisions == whole.prune.decisions


def test_it_needs_images_to_judge_on(folder: Path) -> None:
    with pytest.raises(UsageError, match="--keep-dense-until-gate needs images"):
        settings(folder, {}, eval_data=None)


def test_parity_bisects_a_run_and_a_changed_file_in_it(folder: Path) -> None:
    label({})
    report: Report = run_main_job(settings(folder, {}, precision=("fp32", "fp16")), OnnxExporter())
    assert isinstance(report.prune, PruneReport)
    for precision in ("fp32", "fp16"):
        sound = run_debug_parity(folder / "run", precision, RuntimeSettings(), images=8, observer=NullObserver())
        assert (sound.kind, sound.first, sound.changed) == ("agrees", None, False)
        assert sound.images_from == "8 calibration images"
        assert Divergence.model_validate_json(sound.model_dump_json()) == sound
    path = folder / "run" / "model.onnx"
    model = onnx.load(path)
    layers = json.loads(next(p.value for p in model.metadata_props if p.key == "snowsdeploy.layers"))
    (name,) = layers["4.conv"]
    node = next(n for n in model.graph.node if n.name == name)
    weight = next(t for t in model.graph.initializer if t.name == node.input[1])
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    onnx.save(model, path)
    (folder / "calibration.npz").unlink()
    found = run_debug_parity(folder / "run", "fp32", RuntimeSettings(), images=4, observer=NullObserver())
    assert found.kind == "diverges"
    assert found.changed
    assert found.first is not None
    assert (found.first.node, found.first.layers) == (name, ("4.conv",))
    assert "random images" in found.images_from
    assert f"{name}, layer 4.conv is the first to diverge" in found.conclusion
    with pytest.raises(DataError):
        run_debug_accuracy(folder / "run", None, GatePolicy(), NullObserver())
    with pytest.raises(DataError, match="--data does not exist"):
        run_debug_parity(folder / "run", "fp32", RuntimeSettings(), images=4, observer=NullObserver(), data="nosuch")
    with pytest.raises(OutputError, match="no file of this --precision"):
        run_debug_parity(folder / "run", "int8", RuntimeSettings(), images=4, observer=NullObserver())
