"""Masks chosen before the solve, and what is left of them after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from snowsdeploy.errors import DataError, NumericsError, UsageError
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.violations import count_violations
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.checkpoints import Checkpoints
from snowsdeploy.pruning.importance.masks import Selection, prepare_masks
from snowsdeploy.pruning.prune import Plan, Solved, prune_program
from snowsdeploy.pruning.solve.reconstruct import Reconstruction
from snowsdeploy.selectors import SELECTORS, make_selector
from snowsdeploy.selectors.base import AbstractLossSelector, Estimate, Loss
from snowsdeploy.selectors.obc import OBC
from snowsdeploy.solver.newton import NewtonCG
from snowsdeploy.values import layer_name
from tests.nets import NETS, make_program

BATCHES = list(torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(2)).split(8))
LABELS = torch.randint(0, 5, (24,), generator=torch.Generator().manual_seed(3))
BY_LOSS = [name for name, kind in SELECTORS.items() if issubclass(kind, AbstractLossSelector)]
UNSOLVED = Reconstruction(horizon=0, targets=0.0, newton=None, exact=False)
SNOWS = Reconstruction(horizon="block", targets=1.0, newton=NewtonCG())


@pytest.fixture(params=["cnn", "attention"])
def net(request: pytest.FixtureRequest) -> Program:
    torch.manual_seed(0)
    return make_program(NETS[request.param]())


def names_of(program: Program) -> list[str]:
    return [n for n in ProgramGraph(program).layers if n.split(".")[0] not in ("stem", "patch", "depthwise", "head")]


def prune(
    program: Program,
    selection: Selection,
    pattern: Pattern,
    method: Reconstruction = UNSOLVED,
    labels: torch.Tensor | None = LABELS,
) -> Solved:
    plan = Plan(method, selection, joint=method is SNOWS)
    return prune_program(program, BATCHES, names_of(program), pattern, plan, observer=NullObserver(), labels=labels)


def by(name: str, **settings: object) -> Selection:
    return Selection(make_selector(name, {}), **settings)


@pytest.mark.parametrize(("name", "method"), [*((n, UNSOLVED) for n in SELECTORS), ("qm", SNOWS), ("wanda", SNOWS)])
def test_every_selector_gives_groups_with_and_without_a_solver(net: Program, name: str, method: Reconstruction) -> None:
    pruned = prune(net, by(name), Pattern(2, 4), method)
    for weight in names_of(net):
        groups, violations = count_violations(pruned.tensors[weight], Pattern(2, 4))
        assert violations == 0
        assert int((pruned.tensors[weight] != 0).sum()) == 2 * groups
    assert pruned.selection.threshold == "group"


@pytest.mark.parametrize("name", ["magnitude", "wanda", *BY_LOSS])
def test_a_global_threshold_has_the_share_of_all_weights_and_keeps_the_cap(net: Program, name: str) -> None:
    pattern = Pattern.parse("70%")
    pruned = prune(net, by(name, threshold="global", cap=0.8), pattern)
    kept = {n: pruned.tensors[n] != 0 for n in names_of(net)}
    total = sum(k.numel() for k in kept.values())
    assert sum(int(k.sum()) for k in kept.values()) == pattern.kept(total)
    for weight, k in kept.items():
        assert int(k.sum()) >= k.numel() - int(0.8 * k.numel())
        assert pruned.shares[layer_name(weight)] == pytest.approx(1 - float(k.double().mean()))
    assert pruned.selection.threshold == "global"


@pytest.mark.parametrize("name", ["magnitude", "wanda", "exchange", "lm", "qm", "obd"])
def test_without_a_solver_kept_weights_stay_as_they_are(net: Program, name: str) -> None:
    pruned = prune(net, by(name), Pattern(2, 4))
    assert set(pruned.tensors) == set(names_of(net))
    for weight, value in pruned.tensors.items():
        assert torch.equal(value, net.state_dict[weight] * (value != 0))
    assert {u.outcome for u in pruned.units} == {"mask and the selector's own update only"}


@pytest.mark.parametrize("name", ["sparsegpt", "obc"])
def test_without_a_solver_a_layers_own_update_lowers_its_error(net: Program, name: str) -> None:
    for unit in prune(net, by(name), Pattern(2, 4)).units:
        assert unit.loss_final == unit.loss_initial < unit.loss_masked


def test_without_a_solver_woodfishers_update_is_applied(net: Program) -> None:
    chosen = Selection(make_selector("woodfisher", {"damping": 1e-3}))
    pruned = prune(net, chosen, Pattern(2, 4))
    masks = prepare(net, chosen, Pattern(2, 4))
    for weight, value in pruned.tensors.items():
        choice = masks.select(weight, net.state_dict[weight], torch.Tensor)
        assert choice.weight is not None
        assert torch.equal(value, choice.weight)
        assert not torch.equal(value, net.state_dict[weight] * choice.mask)


def prepare(program: Program, selection: Selection, pattern: Pattern, labels: torch.Tensor | None = LABELS):
    graph, observer = ProgramGraph(program), NullObserver()
    names = names_of(program)
    return prepare_masks(graph, BATCHES, labels, names=names, pattern=pattern, selection=selection, observer=observer)


@pytest.mark.parametrize(("name", "pattern"), [("woodfisher", "2:4"), ("obd", "70%"), ("magnitude", "70%")])
def test_masks_of_the_whole_model_are_not_chosen_again_after_a_kill(
    tiny_cnn: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pattern: str
) -> None:
    store = Checkpoints(tmp_path / "layers", "key")
    threshold = "global" if pattern == "70%" else None
    plan = Plan(UNSOLVED, Selection(make_selector(name, {}), threshold), joint=False)
    arguments = (tiny_cnn, BATCHES, names_of(tiny_cnn), Pattern.parse(pattern), plan)
    whole = prune_program(*arguments, observer=NullObserver(), labels=LABELS, checkpoints=store)
    for path in store.folder.iterdir():  # all that was solved is lost, the masks are not
        if "mask:" not in str(path.read_bytes()[:2000]):
            path.unlink()
    assert len(list(store.folder.iterdir())) == 1
    monkeypatch.delattr("snowsdeploy.pruning.prune.prepare_masks")
    resumed = prune_program(*arguments, observer=NullObserver(), labels=LABELS, checkpoints=store)
    assert resumed.selection == whole.selection
    assert resumed.shares == whole.shares
    assert all(torch.equal(resumed.tensors[n], t) for n, t in whole.tensors.items())


@dataclasses.dataclass(frozen=True)
class Recorder(AbstractLossSelector):
    """Magnitude upside down, so that the largest weights go first; remembers what it saw."""

    seen: ClassVar[list[tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]]] = []

    def estimate(self, loss: Loss, weights: Mapping[str, torch.Tensor], kept: Mapping[str, torch.Tensor]) -> Estimate:
        del loss
        self.seen.append((weights, kept))
        return Estimate({n: -w.abs() for n, w in weights.items()})


@pytest.mark.parametrize("pattern", ["90%", "1:4"])
def test_what_is_pruned_stays_pruned_and_each_step_sees_it(tiny_cnn: Program, pattern: str) -> None:
    recorder = Recorder()
    recorder.seen.clear()
    target = Pattern.parse(pattern)
    masks = prepare(tiny_cnn, Selection(recorder, steps=3), target)
    assert len(recorder.seen) == 3
    for (_, before), (weights, after) in zip(recorder.seen, recorder.seen[1:], strict=False):
        for name, mask in after.items():
            assert not (mask & ~before[name]).any()
            assert mask.sum() < before[name].sum()
            assert not weights[name][~mask].any()
    total = kept = 0
    for name, before in recorder.seen[-1][1].items():
        mask = masks.select(name, tiny_cnn.state_dict[name], torch.Tensor).mask
        assert not (mask & ~before).any()
        total, kept = total + mask.numel(), kept + int(mask.sum())
    assert kept == (target.kept(total) if target.sparsity else total // 4)
    assert masks.report.steps[-1] == pattern


def test_the_loss_models_go_in_small_steps_of_their_own(tiny_cnn: Program) -> None:
    for name in ("lm", "qm", "obd"):
        assert [s.split(",")[0] for s in prepare(tiny_cnn, by(name), Pattern(2, 4)).report.steps] == ["3:4", "2:4"]
    path = prepare(tiny_cnn, by("lm"), Pattern.parse("90%")).report.steps
    assert len(path) == 14
    assert path[-1] == "90%"
    assert len(prepare(tiny_cnn, by("lm", steps=1), Pattern(2, 4)).report.steps) == 1


def test_labels_are_the_datas_or_sampled_and_the_report_says_which(tiny_cnn: Program) -> None:
    pattern = Pattern(2, 4)
    assert prepare(tiny_cnn, by("woodfisher"), pattern).report.labels == "data"
    assert prepare(tiny_cnn, by("woodfisher"), pattern, None).report.labels == "sampled"
    assert prepare(tiny_cnn, by("woodfisher", labels="sampled"), pattern).report.labels == "sampled"
    assert prepare(tiny_cnn, by("obd"), pattern).report.labels == "none"
    assert prepare(tiny_cnn, by("woodfisher"), pattern).report.steps == ("2:4, 24 gradients of one image",)
    for selection in (by("qm"), by("woodtaylor"), by("woodfisher", labels="data")):
        with pytest.raises(DataError, match="needs labels"):
            prepare(tiny_cnn, selection, pattern, None)


@pytest.mark.parametrize("name", ["lm", "qm", "woodtaylor"])
def test_labels_sampled_from_the_model_cannot_replace_true_ones_in_a_gradient(tiny_cnn: Program, name: str) -> None:
    with pytest.raises(DataError, match="needs true labels"):
        prepare(tiny_cnn, by(name, labels="sampled"), Pattern(2, 4))


def test_layers_too_wide_for_a_selector_are_refused_before_anything_is_computed(
    tiny_cnn: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OBC, "widest", 40)
    monkeypatch.delattr("snowsdeploy.pruning.prune.make_schedule")
    with pytest.raises(UsageError, match="--selector is for small layers") as caught:
        prune(tiny_cnn, by("obc"), Pattern(2, 4))
    assert "at most 40 inputs" in str(caught.value)


def test_held_back_images_choose_no_masks(tiny_cnn: Program) -> None:
    plan = Plan(UNSOLVED, by("obd"), joint=False, held_back=1)
    names, observer = names_of(tiny_cnn), NullObserver()
    found = prune_program(tiny_cnn, BATCHES, names, Pattern(2, 4), plan, observer=observer, labels=LABELS)
    fewer = dataclasses.replace(plan, held_back=0)
    expected = prune_program(tiny_cnn, BATCHES[:2], names, Pattern(2, 4), fewer, observer=observer, labels=LABELS[:16])
    assert all(torch.equal(found.tensors[n] != 0, expected.tensors[n] != 0) for n in names)


def test_scores_that_are_not_finite_are_an_error(tiny_cnn: Program) -> None:
    class Broken(AbstractLossSelector):
        def estimate(
            self, loss: Loss, weights: Mapping[str, torch.Tensor], kept: Mapping[str, torch.Tensor]
        ) -> Estimate:
            return Estimate({n: w * torch.nan for n, w in weights.items()})

    with pytest.raises(NumericsError, match="scores"):
        prepare(tiny_cnn, Selection(Broken()), Pattern(2, 4))
