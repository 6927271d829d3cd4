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
from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.violations import count_violations
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.checkpoints import Checkpoints
from snowsdeploy.pruning.importance.masks import Selection
from snowsdeploy.pruning.prune import Plan, prune_program, require_pattern
from snowsdeploy.pruning.schedule import make_schedule
from snowsdeploy.pruning.solve.reconstruct import Horizon, Reconstruction
from snowsdeploy.selectors import make_selector
from snowsdeploy.selectors.sparsegpt import SparseGPT
from snowsdeploy.solver.newton import NewtonCG
from snowsdeploy.values import LayerReport

PATTERN = Pattern(2, 4)
METHOD = Reconstruction(horizon="block", targets=1.0, newton=NewtonCG())
PLAN = Plan(METHOD)


def run(program: Program, plan: Plan = PLAN, *, checkpoints: Checkpoints | None = None):
    batches = list(torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(2)).split(8))
    masks = magnitude_masks(program)
    names, observer = list(masks), NullObserver()
    return prune_program(program, batches, names, PATTERN, plan, observer=observer, checkpoints=checkpoints), masks


def magnitude_masks(program: Program) -> dict[str, torch.Tensor]:
    decisions = decide_layers(ProgramGraph(program), PATTERN)
    state = program.state_dict
    return {d.weight: mask_by_score(state[d.weight].abs(), PATTERN) for d in decisions if d.prunable and d.weight}


def having(**changes: object) -> Plan:
    return dataclasses.replace(PLAN, method=dataclasses.replace(METHOD, **changes))


@pytest.mark.parametrize(
    ("joint", "horizon", "targets"),
    [(True, 3, 0.0), (False, 3, 1.0), (True, "block", 0.5), (False, "block", 0.0), (True, "model", 1.0)],
)
def test_every_solve_lowers_its_objective_on_the_mask(
    tiny: Program, joint: bool, horizon: Horizon, targets: float
) -> None:
    pruned, masks = run(tiny, dataclasses.replace(having(targets=targets, horizon=horizon), joint=joint))
    weights, reports = pruned.tensors, pruned.units
    assert set(weights) == set(masks)
    for name, weight in weights.items():
        assert count_violations(weight, PATTERN)[1] == 0
        assert not weight[~masks[name]].any()
        assert weight.isfinite().all()
    for report in reports:
        assert report.loss_final <= min(report.loss_initial, report.loss_masked) * (1 + 1e-6)
    assert sum(report.newton_steps for report in reports) > 0


def test_the_pruned_model_is_nearer_to_the_dense_one_than_masking_alone(tiny: Program) -> None:
    pruned, masks = run(tiny)
    weights = pruned.tensors
    images = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    dense = tiny.run(images)[0]
    masked = tiny.with_weights({n: tiny.state_dict[n] * m for n, m in masks.items()}).run(images)[0]
    solved = tiny.with_weights(weights).run(images)[0]
    assert (solved - dense).norm() < (masked - dense).norm()


def test_horizon_zero_is_solved_exactly(tiny_cnn: Program) -> None:
    plan = dataclasses.replace(having(horizon=0, newton=None, targets=0.0), joint=False)
    reports = run(tiny_cnn, plan)[0].units
    assert {r.outcome for r in reports} == {"solved exactly"}
    assert all(r.operations == 0 and r.products == 0 for r in reports)


def test_exact_hessian_also_lowers_the_objective(tiny: Program) -> None:
    reports = run(tiny, having(curvature="hessian"))[0].units
    assert all(r.loss_final <= r.loss_initial * (1 + 1e-6) for r in reports)


def test_two_runs_are_identical(tiny: Program) -> None:
    plan = dataclasses.replace(PLAN, sensitivity=0.9, final=METHOD)
    first, second = run(tiny, plan)[0].tensors, run(tiny, plan)[0].tensors
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
    masks = list(magnitude_masks(tiny_cnn))
    store = Checkpoints(tmp_path / "layers", "key")
    plan = dataclasses.replace(having(free=True), final=METHOD)
    arguments = (tiny_cnn, batches, masks, PATTERN, plan)
    with pytest.raises(Interrupted):
        prune_program(*arguments, observer=StopAfterFirst(), checkpoints=store)
    saved = {p: p.stat().st_mtime_ns for p in store.folder.iterdir()}
    assert len(saved) == 1
    resumed = prune_program(*arguments, observer=NullObserver(), checkpoints=store)
    straight = run(tiny_cnn, plan)[0].tensors
    assert set(resumed.tensors) == set(straight)
    assert all(torch.equal(resumed.tensors[name], straight[name]) for name in straight)
    assert {p: p.stat().st_mtime_ns for p in saved} == saved
    assert len(resumed.units) == 2


def test_a_stored_unit_of_another_run_or_a_damaged_one_is_not_used(tiny_cnn: Program, tmp_path: Path) -> None:
    store = Checkpoints(tmp_path / "layers", "key")
    pruned = run(tiny_cnn, checkpoints=store)[0]
    unit = "|".join(make_schedule(ProgramGraph(tiny_cnn), list(pruned.tensors), joint=True)[0].weights)
    assert store.load(unit, LayerReport) is not None
    assert Checkpoints(store.folder, "other").load(unit, LayerReport) is None
    for path in store.folder.iterdir():
        path.write_bytes(path.read_bytes()[:40])
    assert store.load(unit, LayerReport) is None


def test_a_broken_pattern_is_an_error() -> None:
    with pytest.raises(LayoutError, match="is not 2:4"):
        require_pattern("layer", torch.ones(4, 4), PATTERN, "mask")


def test_activations_that_are_not_finite_are_an_error(tiny_cnn: Program) -> None:
    batches = [torch.full((4, 3, 8, 8), torch.inf)]
    masks = list(magnitude_masks(tiny_cnn))
    with pytest.raises(NumericsError, match="NaN or Inf"):
        prune_program(tiny_cnn, batches, masks, PATTERN, PLAN, observer=NullObserver())


def output_error(program: Program, tensors: dict[str, torch.Tensor]) -> float:
    images = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    dense = program.run(images)[0]
    return float((program.with_weights(tensors).run(images)[0] - dense).square().sum() / dense.square().sum())


def test_joined_blocks_make_one_unit(tiny_cnn: Program) -> None:
    names = ["twice.weight", "strided.weight", "dilated.weight"]
    units = make_schedule(ProgramGraph(tiny_cnn), names, joint=True, layers=2)
    assert [u.weights for u in units] == [tuple(names)]


def test_the_final_pass_brings_the_output_nearer(tiny: Program) -> None:
    before = output_error(tiny, run(tiny)[0].tensors)
    pruned, masks = run(tiny, dataclasses.replace(PLAN, final=METHOD))
    assert output_error(tiny, pruned.tensors) < before
    assert pruned.final is not None
    assert len(pruned.final.layers) == len(masks)
    assert pruned.final.loss_final < pruned.final.loss_initial
    assert "final pass" in pruned.notes[0]
    assert all(count_violations(pruned.tensors[name], PATTERN)[1] == 0 for name in masks)


def test_vectors_vary_when_asked(tiny: Program) -> None:
    weights, both = run(tiny)[0], run(tiny, having(free=True))[0]
    vectors = set(both.tensors) - set(weights.tensors)
    assert vectors
    assert all(both.tensors[name].dim() == 1 for name in vectors)
    assert any(not torch.equal(both.tensors[name], tiny.state_dict[name]) for name in vectors)
    assert sum(u.vectors for u in both.units) == len(vectors)


def test_held_back_images_are_reported_and_never_get_worse(tiny: Program) -> None:
    reports = run(tiny, dataclasses.replace(PLAN, held_back=1))[0].units
    for report in reports:
        assert report.held_back_initial is not None
        assert report.held_back_final is not None
        assert report.held_back_final <= report.held_back_initial


def test_auto_targets_say_what_they_chose(tiny: Program) -> None:
    reports = run(tiny, dataclasses.replace(having(targets="auto"), held_back=1))[0].units
    for report in reports:
        assert report.targets.startswith(("dense (", "input ("))
        assert "against" in report.targets


def test_a_metric_changes_the_solution_and_lowers_the_output_error_it_stands_for(tiny: Program) -> None:
    plain, weighted = run(tiny)[0].tensors, run(tiny, dataclasses.replace(PLAN, sensitivity=1.0))[0].tensors
    assert any(not torch.equal(plain[name], weighted[name]) for name in plain)


def test_batch_norms_are_kept_or_moved_by_what_the_output_says(tiny: Program) -> None:
    pruned = run(tiny, dataclasses.replace(PLAN, reestimate=True))[0]
    moved = {n for n in pruned.tensors if "running" in n}
    assert len(pruned.notes) == 1
    assert bool(moved) == pruned.notes[0].endswith(", kept")


def test_a_selector_sees_the_layers_inputs(tiny: Program) -> None:
    pruned, masks = run(tiny, dataclasses.replace(PLAN, selection=Selection(SparseGPT())))
    kept = {name: pruned.tensors[name] != 0 for name in masks}
    assert all(count_violations(pruned.tensors[name], PATTERN)[1] == 0 for name in masks)
    assert any(not torch.equal(kept[name], mask) for name, mask in masks.items())


@pytest.mark.parametrize("selector", ["magnitude", "wanda", "sparsegpt", "obc", "exchange"])
def test_unstructured_sparsity_is_solved_too(tiny: Program, selector: str) -> None:
    pattern = Pattern.parse("70%")
    batches = list(torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(2)).split(8))
    names = list(magnitude_masks(tiny))
    plan = dataclasses.replace(PLAN, selection=Selection(make_selector(selector, {})))
    pruned = prune_program(tiny, batches, names, pattern, plan, observer=NullObserver())
    for name in names:
        weight = pruned.tensors[name]
        assert int((weight != 0).sum()) <= pattern.kept(weight.numel())
