"""The whole-model loop: pattern, improvement, determinism, resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from snowsdeploy.errors import LayoutError, NumericsError
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.prune import Checkpoints, prune_program, require_pattern, select_masks
from snowsdeploy.pruning.reconstruct import Reconstruction
from snowsdeploy.pruning.schedule import make_schedule
from snowsdeploy.solver.newton import NewtonCG
from snowsdeploy.sparsity.pattern import Pattern, count_violations

PATTERN = Pattern(2, 4)
METHOD = Reconstruction(horizon="block", targets="dense", newton=NewtonCG())


def run(program: Program, method: Reconstruction = METHOD, *, joint: bool = True, **options: object):
    batches = list(torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(2)).split(8))
    masks = select_masks(program, decide_layers(ProgramGraph(program), PATTERN), PATTERN, "magnitude")
    observer = NullObserver()
    return prune_program(program, batches, masks, PATTERN, method, joint=joint, observer=observer, **options), masks


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("targets", ["dense", "input"])
def test_every_solve_lowers_its_objective_on_the_mask(tiny: Program, joint: bool, targets: str) -> None:
    (weights, reports), masks = run(tiny, dataclasses.replace(METHOD, targets=targets), joint=joint)
    assert set(weights) == set(masks)
    for name, weight in weights.items():
        assert count_violations(weight, PATTERN)[1] == 0
        assert not weight[~masks[name]].any()
        assert weight.isfinite().all()
    for report in reports:
        assert report.loss_final <= min(report.loss_initial, report.loss_masked) * (1 + 1e-6)
    assert sum(report.newton_steps for report in reports) > 0


def test_the_pruned_model_is_nearer_to_the_dense_one_than_masking_alone(tiny: Program) -> None:
    (weights, _), masks = run(tiny)
    images = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    dense = tiny.run(images)[0]
    masked = tiny.with_weights({n: tiny.state_dict[n] * m for n, m in masks.items()}).run(images)[0]
    solved = tiny.with_weights(weights).run(images)[0]
    assert (solved - dense).norm() < (masked - dense).norm()


def test_horizon_zero_is_solved_exactly(tiny_cnn: Program) -> None:
    method = dataclasses.replace(METHOD, horizon=0, newton=None, targets="input")
    (_, reports), _ = run(tiny_cnn, method, joint=False)
    assert {r.outcome for r in reports} == {"solved exactly"}
    assert all(r.operations == 0 and r.products == 0 for r in reports)


def test_exact_hessian_also_lowers_the_objective(tiny: Program) -> None:
    (_, reports), _ = run(tiny, dataclasses.replace(METHOD, curvature="hessian"))
    assert all(r.loss_final <= r.loss_initial * (1 + 1e-6) for r in reports)


def test_two_runs_are_identical(tiny: Program) -> None:
    (first, _), _ = run(tiny)
    (second, _), _ = run(tiny)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_joint_units_are_residual_blocks(tiny_cnn: Program) -> None:
    graph = ProgramGraph(tiny_cnn)
    names = ["twice.weight", "strided.weight", "dilated.weight"]
    units = make_schedule(graph, names, joint=True)
    assert [u.weights for u in units] == [("twice.weight",), ("strided.weight", "dilated.weight")]
    assert [u.weights for u in make_schedule(graph, names, joint=False)] == [(n,) for n in names]


class Interrupted(Exception):
    """Stands for a kill."""


class StopAfterFirst(NullObserver):
    def advance(self, done: int, total: int, detail: str = "") -> None:
        if done == 1:
            raise Interrupted


def test_an_interrupted_run_resumes_to_identical_weights(tiny_cnn: Program, tmp_path: Path) -> None:
    batches = list(torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(2)).split(8))
    masks = select_masks(tiny_cnn, decide_layers(ProgramGraph(tiny_cnn), PATTERN), PATTERN, "magnitude")
    store = Checkpoints(tmp_path / "layers", "key")
    arguments = (tiny_cnn, batches, masks, PATTERN, METHOD)
    with pytest.raises(Interrupted):
        prune_program(*arguments, joint=True, observer=StopAfterFirst(), checkpoints=store)
    saved = {p: p.stat().st_mtime_ns for p in store.folder.iterdir()}
    assert len(saved) == 1
    resumed, reports = prune_program(*arguments, joint=True, observer=NullObserver(), checkpoints=store)
    (straight, _), _ = run(tiny_cnn)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
    assert {p: p.stat().st_mtime_ns for p in saved} == saved
    assert len(reports) == 2


def test_a_stored_unit_of_another_run_or_a_damaged_one_is_not_used(tiny_cnn: Program, tmp_path: Path) -> None:
    store = Checkpoints(tmp_path / "layers", "key")
    (weights, reports), _ = run(tiny_cnn, checkpoints=store)
    unit = make_schedule(ProgramGraph(tiny_cnn), list(weights), joint=True)[0]
    assert store.load(unit) is not None
    assert Checkpoints(store.folder, "other").load(unit) is None
    for path in store.folder.iterdir():
        path.write_bytes(path.read_bytes()[:40])
    assert store.load(unit) is None
    assert reports


def test_a_broken_pattern_is_an_error() -> None:
    with pytest.raises(LayoutError, match="is not 2:4"):
        require_pattern("layer", torch.ones(4, 4), PATTERN, "mask")


def test_activations_that_are_not_finite_are_an_error(tiny_cnn: Program) -> None:
    batches = [torch.full((4, 3, 8, 8), torch.inf)]
    masks = select_masks(tiny_cnn, decide_layers(ProgramGraph(tiny_cnn), PATTERN), PATTERN, "magnitude")
    with pytest.raises(NumericsError, match="NaN or Inf"):
        prune_program(tiny_cnn, batches, masks, PATTERN, METHOD, joint=True, observer=NullObserver())
