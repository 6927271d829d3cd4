"""The whole model: masks, then reconstruction front to back, each unit seeing the pruned prefix; resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor
from torch.fx import Node

from snowsdeploy.batch import Batch, tensors_of
from snowsdeploy.device import release_memory
from snowsdeploy.distributed import from_first
from snowsdeploy.errors import LayoutError
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.violations import count_violations
from snowsdeploy.progress import Observer
from snowsdeploy.pruning.checkpoints import Checkpoints
from snowsdeploy.pruning.flow.derivatives import Derivatives, notes_of, operator_names
from snowsdeploy.pruning.flow.probe import probe_derivatives
from snowsdeploy.pruning.flow.storage import IN_MEMORY, Storage
from snowsdeploy.pruning.importance.loss import LOSS_IMAGES
from snowsdeploy.pruning.importance.masks import Masks, Selection, prepare_masks
from snowsdeploy.pruning.importance.sensitivity import WHOLE_IMAGES, output_curvature
from snowsdeploy.pruning.norms import reestimate_batch_norms
from snowsdeploy.pruning.schedule import Unit, make_schedule
from snowsdeploy.pruning.solve.final import final_hindrance, final_pass
from snowsdeploy.pruning.solve.problem import UnitSolution
from snowsdeploy.pruning.solve.reconstruct import Reconstruction, Tell
from snowsdeploy.pruning.solve.streams import Streams, open_streams, output_error
from snowsdeploy.values import LayerReport, SelectionReport

_MASK = "kept:"  # before a weight's name, in what is stored of a solve


@dataclass(frozen=True)
class Plan:
    """What is solved, in which order: units front to back, normalisation statistics, the final pass.

    Attributes:
        method: How a unit is solved.
        selection: Which weights stay.
        joint: Solve the layers of a residual block together.
        layers: Join residual blocks until a unit has so many layers.
        sensitivity: Share of the model's output curvature in the metric of a unit's end; the rest is the identity.
        held_back: How many of the last batches no solve sees.
        reestimate: Move the batch normalisation statistics after the units are solved.
        final: How the final pass over all weights is solved; None leaves it out.
        storage: Where activations are between uses.
        at_once: Images whose graph of the whole model is held for its output's curvature.
        loss_at_once: The same for a selector's loss.
    """

    method: Reconstruction
    selection: Selection = field(default_factory=Selection)
    joint: bool = True
    layers: int = 1
    sensitivity: float = 0.0
    held_back: int = 0
    reestimate: bool = False
    final: Reconstruction | None = None
    storage: Storage = IN_MEMORY
    at_once: int = WHOLE_IMAGES
    loss_at_once: int = LOSS_IMAGES

    def units(self, graph: ProgramGraph, weights: Sequence[str]) -> tuple[Unit, ...]:
        """Of layers by their weights' names; none has layers on both sides of what cannot be differentiated."""
        walls = self.method.derivatives.blocking(self.method.curvature) if self.method.newton else ()
        return make_schedule(graph, weights, joint=self.joint, layers=self.layers, walls=walls)

    def with_derivatives(self, found: Derivatives) -> Plan:
        """With what operators lack, in every part that differentiates."""
        final = replace(self.final, derivatives=found) if self.final else None
        return replace(self, method=replace(self.method, derivatives=found), final=final)

    def without_hindered(self, graph: ProgramGraph, units: Sequence[Unit]) -> tuple[Plan, tuple[str, ...]]:
        """Without a final pass where that cannot be differentiated, and the sentence that says so."""
        words = final_hindrance(graph, units, self.final) if self.final else ""
        return (replace(self, final=None), (f"no final pass over all layers: {words}",)) if words else (self, ())


def differentiable(plan: Plan, graph: ProgramGraph, batch: Batch) -> Plan:
    """The plan with what the graph's operators lack; the same where it differentiates nothing but single layers."""
    layers_only = plan.method.horizon == 0 and plan.method.newton is None and plan.final is None
    if layers_only and not plan.sensitivity:
        return plan
    return plan.with_derivatives(probe_derivatives(graph, batch))


@dataclass(frozen=True)
class Solved:
    """What the whole-model loop gives.

    Attributes:
        tensors: New values by name: pruned weights, and vectors and statistics that changed with them.
        masks: Boolean mask of each pruned weight, by its name: which weights stay, also where one is zero.
        units: A report a unit.
        final: The final pass' report.
        selection: How the masks were chosen.
        shares: Share of zeros that each layer must have, by layer name, where a global threshold made them differ.
        notes: What was decided on the way, a sentence each.
    """

    tensors: dict[str, Tensor]
    masks: dict[str, Tensor]
    units: tuple[LayerReport, ...]
    final: LayerReport | None
    selection: SelectionReport
    shares: dict[str, float]
    notes: tuple[str, ...]


def prune_program(
    program: Program,
    batches: Sequence[Batch],
    weights: Sequence[str],
    pattern: Pattern,
    plan: Plan,
    *,
    observer: Observer,
    labels: Tensor | None = None,
    checkpoints: Checkpoints | None = None,
) -> Solved:
    """Solve every unit in graph order, then what the plan has for the whole model.

    Args:
        program: The dense program.
        batches: Calibration images, `[batch, C, H, W]` each; the last `plan.held_back` are not solved on.
        weights: Names of the weights to prune, in graph order.
        pattern: Of the masks; checked on every weight after its solve.
        plan: What is solved and how.
        observer: Told about each solve.
        labels: Classes of the images in order, for selectors that read the loss.
        checkpoints: Solutions are read from and written there.

    Raises:
        LayoutError: A solved weight breaks the pattern.
        NumericsError: An activation is not finite.
        DataError: The selector needs labels that are not there.
        GraphError: The selector cannot read the graph.
    """
    graph = ProgramGraph(program)

    def choose() -> Masks:
        seen = batches[: len(batches) - plan.held_back]
        known = None if labels is None else labels[: sum(map(len, seen))]
        return prepare_masks(
            graph,
            seen,
            known,
            names=weights,
            pattern=pattern,
            selection=plan.selection,
            observer=observer,
            at_once=plan.loss_at_once,
        )

    masks = _choose_or_restore(choose, pattern, plan.selection, checkpoints)
    plan = differentiable(plan, graph, batches[0])
    plan = plan.with_derivatives(_as_first_found(plan.method.derivatives, graph))
    units = plan.units(graph, weights)
    plan, hindered = plan.without_hindered(graph, units)
    total = len(units) + (plan.final is not None)
    if plan.sensitivity:
        observer.doing("curvature at the output", 0, total)
    metrics = unit_metrics(graph, batches, units, plan)
    release_memory(tensors_of(batches[0])[0].device)
    streams = _streams(graph, batches, metrics, plan, {})
    loop = _Loop(weights, masks, streams, total, observer, checkpoints)
    for unit in units:
        loop.solve("|".join(unit.weights), unit.names, partial(plan.method.solve, graph, unit, streams, masks.select))
    notes = [*notes_of((r.derivatives for r in loop.reports), len(loop.reports)), *hindered]
    if plan.sensitivity:
        notes += _metric_notes(graph, plan.method.derivatives, units)
    if plan.reestimate:
        statistics, note = _reestimate(graph, batches, loop.tensors, plan)
        loop.tensors |= statistics
        notes.append(note)
    final = None
    if plan.final is not None:
        supports = {name: loop.kept[name] for name in weights}
        method, fresh = plan.final, _streams(graph, batches, metrics, plan, loop.tensors)
        before = output_error(fresh, {}, held_back_only=False)
        names = tuple(graph.layers[weight].name for weight in weights)
        final = loop.solve(
            "final pass", names, lambda tell: final_pass(graph, units, fresh, supports, method, tell=tell)
        )
        after = output_error(_streams(graph, batches, metrics, plan, loop.tensors), {}, held_back_only=False)
        notes.append(f"final pass: relative output error {before:.3g} -> {after:.3g}")
    reports = tuple(loop.reports[: len(units)])
    return Solved(loop.tensors, loop.kept, reports, final, masks.report, masks.shares(program), tuple(notes))


def _as_first_found(found: Derivatives, graph: ProgramGraph) -> Derivatives:
    """Processes see other images, on which an operator could look otherwise; they must cut the same windows."""
    names = from_first({node.name: lacks for node, lacks in found.lacks.items()})
    return Derivatives({node: names[node.name] for node in graph.nodes if node.name in names})


def _metric_notes(graph: ProgramGraph, found: Derivatives, units: Sequence[Unit]) -> list[str]:
    """The layers whose errors are not weighed by the output, if there are any."""
    calls = [call for unit in units for layer in unit.layers for call in layer.calls]
    opaque = found.opaque(graph, calls)
    if not opaque:
        return []
    count, names = f"{len(opaque)} of {len(calls)}", operator_names(opaque.values())
    return [f"errors of {count} layers are not weighed by what they do to the output: no derivative of {names}"]


@dataclass
class _Loop:
    """Solves one after the other, each restored or run, checked, stored and told.

    Attributes:
        weights: Names of those that must hold their masks' pattern.
        masks: Which they are.
        streams: The pruned one takes each solution.
        total: How many solves there are.
        observer: Told about each.
        checkpoints: Read and written.
        tensors: Solved so far.
        kept: Masks of the weights solved so far.
        reports: A report a solve.
    """

    weights: Sequence[str]
    masks: Masks
    streams: Streams
    total: int
    observer: Observer
    checkpoints: Checkpoints | None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    reports: list[LayerReport] = field(default_factory=list)

    def solve(self, problem: str, layers: Sequence[str], run: Callable[[Tell], UnitSolution]) -> LayerReport:
        """Solve for some layers, unless a run before has done it."""
        restored = self._restore(problem)
        solution = restored or run(self._teller(layers))
        if self.checkpoints and restored is None:
            masks = {f"{_MASK}{name}": mask for name, mask in solution.masks.items()}
            self.checkpoints.save(problem, solution.tensors | masks, solution.report)
        for name, value in solution.tensors.items():
            if name in self.weights:
                require_pattern(name, value, self.masks.pattern_of(name), "solved weight")
            self.streams.pruned.set_weight(self.streams.pruned.graph.placeholder(name), value)
        self.tensors.update(solution.tensors)
        self.kept.update(solution.masks)
        self.reports.append(solution.report)
        release_memory(next(iter(solution.tensors.values())).device)
        self.observer.advance(len(self.reports), self.total, describe(solution.report, restored=restored is not None))
        return solution.report

    def _restore(self, problem: str) -> UnitSolution | None:
        stored = self.checkpoints.load(problem, LayerReport) if self.checkpoints else None
        if stored is None:
            return None
        tensors = {name: tensor for name, tensor in stored[0].items() if not name.startswith(_MASK)}
        masks = {name.removeprefix(_MASK): t for name, t in stored[0].items() if name.startswith(_MASK)}
        return UnitSolution(tensors, masks, stored[1])

    def _teller(self, layers: Sequence[str]) -> Tell:
        first = layers[0] + (f" and {len(layers) - 1} more" if len(layers) > 1 else "")
        done = len(self.reports)
        return lambda what, share: self.observer.doing(f"{first}: {what}", done + share, self.total)


def _choose_or_restore(
    choose: Callable[[], Masks], pattern: Pattern, selection: Selection, checkpoints: Checkpoints | None
) -> Masks:
    """The masks that a run had chosen before its first solve, else new ones."""
    if checkpoints is None or not selection.first(pattern):
        return choose()
    found = checkpoints.load("masks", SelectionReport)
    if found:
        return Masks.restored(*found, selection=selection, pattern=pattern)
    masks = choose()
    checkpoints.save("masks", masks.tensors(), masks.report)
    return masks


def metric_nodes(graph: ProgramGraph, units: Sequence[Unit]) -> list[Node]:
    """The values that have a metric: units' ends and layers' outputs."""
    ends = dict.fromkeys(unit.until for unit in units if unit.until is not None)
    return [*ends, *(call for unit in units for name in unit.weights for call in graph.layers[name].calls)]


def unit_metrics(
    graph: ProgramGraph, batches: Sequence[Batch], units: Sequence[Unit], plan: Plan
) -> dict[Node, Tensor]:
    """The diagonal metric of each unit's end and of its layers' outputs, as `Streams` wants it."""
    if not plan.sensitivity:
        return {}
    seen = batches[: len(batches) - plan.held_back]
    nodes, found = metric_nodes(graph, units), plan.method.derivatives
    curvature = output_curvature(
        graph, graph.state_values(), seen, nodes, plan.method.seed, at_once=plan.at_once, derivatives=found
    )
    return {node: (1 - plan.sensitivity) + plan.sensitivity * value for node, value in curvature.items()}


def _streams(
    graph: ProgramGraph,
    batches: Sequence[Batch],
    metrics: dict[Node, Tensor],
    plan: Plan,
    tensors: dict[str, Tensor],
) -> Streams:
    """Dense and pruned activations in front of the first node."""
    state = graph.state_values()
    changed = state | {graph.placeholder(name): value for name, value in tensors.items()}
    held_back, storage = plan.held_back, plan.storage
    return open_streams(graph, batches, state, changed, metrics=metrics, held_back=held_back, storage=storage)


def _reestimate(
    graph: ProgramGraph, batches: Sequence[Batch], tensors: dict[str, Tensor], plan: Plan
) -> tuple[dict[str, Tensor], str]:
    """Batch normalisation statistics, kept only where they bring the output nearer to the dense one."""
    streams = _streams(graph, batches, {}, plan, tensors)
    statistics = reestimate_batch_norms(graph, streams.dense, streams.pruned)
    if not statistics:
        return {}, "no batch normalisation to re-estimate"
    before, after = (
        output_error(_streams(graph, batches, {}, plan, tensors | extra), {}, held_back_only=False)
        for extra in ({}, statistics)
    )
    kept = after < before
    verdict = "kept" if kept else "not kept"
    note = f"batch normalisation re-estimated: relative output error {before:.3g} -> {after:.3g}, {verdict}"
    return (statistics if kept else {}), note


def require_pattern(name: str, tensor: Tensor, pattern: Pattern, what: str) -> None:
    """Raise when a tensor `[K, C, ...]` breaks the pattern.

    Raises:
        LayoutError: At least one group has too many non-zeros.
    """
    groups, violations = count_violations((tensor != 0).cpu().numpy(), pattern)
    if violations:
        raise LayoutError(
            f"the {what} of {name} is not {pattern}",
            seen=f"{violations} of {groups} groups break it",
            allowed=f"groups that keep to {pattern}",
            fix="please report the model and the command; --exclude keeps the layer dense",
        )


def describe(report: LayerReport, *, restored: bool = False) -> str:
    """One line about a solve, for people."""
    names = ", ".join(report.layers) if len(report.layers) <= 8 else f"all {len(report.layers)} layers"
    note = ", restored" if restored else f", {report.seconds:.1f} s"
    return f"{names}: loss {report.loss_masked:.3g} -> {report.loss_final:.3g}{note}"
