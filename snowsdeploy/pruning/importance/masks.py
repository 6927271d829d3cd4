"""Masks that are chosen for the whole model before anything is solved: by the loss, or with one global threshold."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, Self

import torch
from torch import Tensor

from snowsdeploy.batch import Batch
from snowsdeploy.distributed import all_sum
from snowsdeploy.errors import DataError, NumericsError, UsageError
from snowsdeploy.models.graph import layer_input
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.threshold import masks_by_scores, sparsity_path
from snowsdeploy.progress import Observer
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.gram import gram_matrix
from snowsdeploy.pruning.importance.loss import LOSS_IMAGES, ProgramLoss
from snowsdeploy.selectors import select_mask
from snowsdeploy.selectors.base import (
    AbstractLossSelector,
    AbstractScore,
    AbstractSelector,
    AbstractSweep,
    Choice,
    Tensors,
    Threshold,
)
from snowsdeploy.selectors.magnitude import Magnitude
from snowsdeploy.values import SelectionReport


@dataclass(frozen=True)
class Selection:
    """Which weights stay.

    Attributes:
        selector: Its method.
        threshold: What unstructured scores are compared across; None leaves it to the method.
        cap: Largest share of a layer that a global threshold prunes.
        steps: Of a loss selector, which estimates anew at each on the weights that are left; None leaves it to the
            method.
        labels: Where a loss selector's labels come from; `auto`: the data's where there are any.
        seed: Of sampled labels.
    """

    selector: AbstractSelector = field(default_factory=Magnitude)
    threshold: Threshold | None = None
    cap: float = 0.99
    steps: int | None = None
    labels: Literal["auto", "data", "sampled"] = "auto"
    seed: int = 0

    @property
    def across(self) -> Threshold:
        """The threshold in use."""
        return self.threshold or self.selector.threshold

    @property
    def estimates(self) -> int:
        """The steps in use."""
        return self.steps or (self.selector.steps if isinstance(self.selector, AbstractLossSelector) else 1)

    def first(self, pattern: Pattern) -> bool:
        """Whether the masks of all layers are chosen before the first solve."""
        if isinstance(self.selector, AbstractLossSelector):
            return True
        return pattern.sparsity is not None and self.across == "global" and isinstance(self.selector, AbstractScore)


@dataclass(frozen=True)
class Masks:
    """How each layer gets its mask.

    Attributes:
        selection: The method.
        pattern: Of the masks; with a global threshold the share of all weights together.
        choices: Each weight's, where they are made before the first solve.
        report: What was chosen and on what grounds.
    """

    selection: Selection
    pattern: Pattern
    choices: Mapping[str, Choice] | None
    report: SelectionReport

    def select(self, name: str, weight: Tensor, moments: Callable[[], Tensor]) -> Choice:
        """A layer's mask, by its weight and what computes `X^T X` where it was not chosen before."""
        if self.choices is not None:
            return self.choices[name]
        selector = self.selection.selector
        assert isinstance(selector, AbstractScore | AbstractSweep)
        return select_mask(selector, weight, moments, self.pattern, self.selection.across)

    def pattern_of(self, name: str) -> Pattern:
        """What a weight must hold; they differ where the threshold is global."""
        if self.choices is None or self.pattern.sparsity is None:
            return self.pattern
        return replace(self.pattern, sparsity=1 - float(self.choices[name].mask.double().mean()))

    def shares(self, program: Program) -> dict[str, float]:
        """Share of zeros of each layer, by layer name, where a global threshold made them differ; else empty."""
        if self.choices is None or self.report.threshold != "global":
            return {}
        patterns = {program.layer_name(name): self.pattern_of(name) for name in self.choices}
        return {name: p.sparsity for name, p in patterns.items() if p.sparsity is not None}

    def tensors(self) -> Tensors:
        """What `restored` takes."""
        choices = self.choices or {}
        masks = {f"mask:{name}": choice.mask for name, choice in choices.items()}
        return masks | {f"weight:{name}": c.weight for name, c in choices.items() if c.weight is not None}

    @classmethod
    def restored(cls, tensors: Tensors, report: SelectionReport, *, selection: Selection, pattern: Pattern) -> Self:
        """Masks as they were chosen before."""
        names = [key.removeprefix("mask:") for key in tensors if key.startswith("mask:")]
        choices = {n: Choice(tensors[f"mask:{n}"], tensors.get(f"weight:{n}")) for n in names}
        return cls(selection, pattern, choices, report)


def prepare_masks(
    graph: ProgramGraph,
    batches: Sequence[Batch],
    labels: Tensor | None,
    *,
    names: Sequence[str],
    pattern: Pattern,
    selection: Selection,
    observer: Observer,
    at_once: int = LOSS_IMAGES,
) -> Masks:
    """Choose all masks now, or say how each is chosen when its layer is reached.

    Args:
        graph: The program's graph.
        batches: Images that may be looked at.
        labels: Their classes, `[images]`; None without.
        names: Weights to prune, in graph order.
        pattern: Of the masks; with a global threshold the share of all weights together.
        selection: The method.
        observer: Told about each step.
        at_once: Images whose whole graph is held for the loss.

    Raises:
        UsageError: A layer is too wide for the method.
        DataError: The method needs labels that are not there, or they do not fit.
        GraphError: A loss selector cannot read the graph.
        NumericsError: A score is not finite.
    """
    started = time.perf_counter()
    selector = selection.selector
    _require_narrow(graph, names, selector)
    choices: Mapping[str, Choice] | None = None
    source: Literal["none", "data", "sampled"] = "none"
    facts: tuple[str, ...] = ()
    if isinstance(selector, AbstractLossSelector):
        source = _label_source(selector, selection, labels)
        true = labels if source == "data" else None
        loss = ProgramLoss(
            graph, graph.state_values(), batches, true, names=names, seed=selection.seed, at_once=at_once
        )
        dense = {name: graph.program.state_dict[name].detach() for name in names}
        choices, facts = _by_loss(selector, loss, dense, pattern, selection=selection, observer=observer)
    elif selection.first(pattern):
        assert isinstance(selector, AbstractScore)
        scores = _dense_scores(graph, batches, names, selector)
        choices = {n: Choice(m) for n, m in masks_by_scores(scores, pattern, "global", selection.cap).items()}
    report = SelectionReport(
        settings=asdict(selector),  # type: ignore[call-overload]  # every selector is a dataclass
        threshold=selection.across if pattern.sparsity is not None else "group",
        steps=facts,
        labels=source,
        seconds=time.perf_counter() - started,
    )
    return Masks(selection, pattern, choices, report)


def _require_narrow(graph: ProgramGraph, names: Sequence[str], selector: AbstractSelector) -> None:
    widths = {name: graph.program.state_dict[name][0].numel() for name in names}
    wide = [graph.layers[name].name for name, width in widths.items() if width > (selector.widest or width)]
    if wide:
        raise UsageError(
            "--selector is for small layers: its cost a row is cubic in the inputs",
            seen=f"{len(wide)} of {len(names)} layers have more inputs, up to {max(widths.values())}, {wide[0]} first",
            allowed=f"at most {selector.widest} inputs, positions of a kernel counted each",
            fix="use --selector sparsegpt or exchange, or --exclude the wide layers",
        )


def _label_source(
    selector: AbstractLossSelector, selection: Selection, labels: Tensor | None
) -> Literal["none", "data", "sampled"]:
    if selector.labels == "none":
        return "none"
    if selection.labels == "sampled" and selector.labels == "needed":
        raise DataError(
            "the selector needs true labels: labels sampled from the model have no gradient on average",
            seen="--labels sampled",
            allowed="--labels data, with labelled images",
            fix="leave --labels out, or use --selector obd or woodfisher",
        )
    if selection.labels == "sampled" or (labels is None and selection.labels == "auto" and selector.labels == "any"):
        return "sampled"
    if labels is None:
        raise DataError(
            "the selector needs labels",
            seen="--data without labels",
            allowed="class folders, or y in an .npz file",
            fix="add labels, or use --selector obd",
        )
    return "data"


def _by_loss(
    selector: AbstractLossSelector,
    loss: ProgramLoss,
    weights: Tensors,
    pattern: Pattern,
    *,
    selection: Selection,
    observer: Observer,
) -> tuple[dict[str, Choice], tuple[str, ...]]:
    """Over the steps, estimate on what is left and prune; what is pruned stays pruned."""
    kept = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    facts, moves = [], False
    for target in sparsity_path(pattern, selection.estimates):
        estimate = selector.estimate(loss, weights, kept)
        scores = {n: torch.where(kept[n], _finite(n, estimate.scores[n]), -torch.inf) for n in weights}
        masks = masks_by_scores(scores, target, selection.across, selection.cap)
        masks = {n: masks[n] & kept[n] for n in weights}
        moves = estimate.update is not None
        weights = estimate.update(masks) if estimate.update else {n: weights[n] * masks[n] for n in weights}
        kept = masks
        facts.append(f"{target}{', ' + estimate.facts if estimate.facts else ''}")
        observer.message(f"masks: {facts[-1]}")
    return {n: Choice(kept[n], weights[n] if moves else None) for n in kept}, tuple(facts)


def _dense_scores(
    graph: ProgramGraph, batches: Sequence[Batch], names: Sequence[str], selector: AbstractScore
) -> dict[str, Tensor]:
    """Scores by the inputs of the dense model, front to back, one layer's moments at a time."""
    if not selector.reads_inputs:
        dense = {name: graph.program.state_dict[name].detach() for name in names}
        nothing = torch.empty(0)
        return {n: _finite(n, selector.score(w.flatten(1), nothing).view(w.shape)) for n, w in dense.items()}
    stream = Activations(graph, batches, graph.state_values())
    owner = {call: name for name in names for call in graph.layers[name].calls}
    grams: dict[str, Tensor] = {}
    scores: dict[str, Tensor] = {}
    for call in sorted(owner, key=graph.order.__getitem__):
        name, source = owner[call], layer_input(call)
        stream.advance(call)
        gram = gram_matrix((call, stream.live_ins(b, [source])[source]) for b in range(len(stream)))
        grams[name] = grams[name] + gram if name in grams else gram
        if call == graph.layers[name].calls[-1]:
            weight = stream.value(graph.placeholder(name))
            gram = all_sum(grams.pop(name))
            scores[name] = _finite(name, selector.score(weight.flatten(1), gram).view(weight.shape))
    return {name: scores[name] for name in names}


def _finite(name: str, scores: Tensor) -> Tensor:
    if not bool(torch.isfinite(scores).all()):
        raise NumericsError(
            "the scores of a layer's weights are not finite",
            seen=f"{name}: {int((~torch.isfinite(scores)).sum())} of {scores.numel()} scores",
            allowed="finite scores",
            fix="check the images, or use another --selector",
        )
    return scores
