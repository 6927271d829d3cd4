"""The pruning stage: masks, then weights that reconstruct the dense model on them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from snowsdeploy.data.digest import tensors_digest
from snowsdeploy.data.samples import Samples
from snowsdeploy.device import CPU, matmul_tf32
from snowsdeploy.distributed import world
from snowsdeploy.models.program import Program
from snowsdeploy.progress import NullObserver, Observer
from snowsdeploy.pruning.checkpoints import Checkpoints, run_key
from snowsdeploy.pruning.memory import fit_memory, fitted_plan, within_memory
from snowsdeploy.pruning.prepared import Prepared, fitted, prepare
from snowsdeploy.pruning.prune import Solved, prune_program
from snowsdeploy.pruning.workspace import Workspace
from snowsdeploy.settings.presets import resolve
from snowsdeploy.settings.prune import PruneSettings, solver_facts
from snowsdeploy.settings.resources import ResourceSettings
from snowsdeploy.values import MemoryPlan, PruneReport, TensorDigests


@dataclass(frozen=True, eq=False, repr=False)
class Pruned:
    """A pruned model.

    Attributes:
        dense: The dense program, its channels in the order that pruning gave them.
        tensors: What pruning changed, by name: pruned weights, and the vectors and statistics that moved with them.
        masks: Boolean mask of each pruned weight, by its name.
        report: What was decided and done.
        samples: What it was pruned on; None where it was read from a run.
    """

    dense: Program
    tensors: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    report: PruneReport
    samples: Samples | None = None

    def __repr__(self) -> str:
        """One line."""
        report = self.report
        layers = f"{len(report.pruned)} of {len(report.decisions)} layers {report.pattern}"
        return f"<Pruned {self.dense.source.arch or self.dense.source.source}: {layers}, {report.seconds:.0f} s>"

    def digests(self) -> TensorDigests:
        """What tells that a run's files hold what the pruning left."""
        parts = {"dense": self.dense.state_dict, "weights": self.tensors, "masks": self.masks}
        return TensorDigests(**{name: tensors_digest(part) for name, part in parts.items()})

    @cached_property
    def sparse(self) -> Program:
        """The pruned program."""
        return self.dense.with_weights(self.tensors)


def prune(
    program: Program,
    samples: Samples,
    settings: PruneSettings | None = None,
    resources: ResourceSettings | None = None,
    *,
    space: Workspace | None = None,
    observer: Observer | None = None,
) -> Pruned:
    """Choose masks and solve for the weights on them; of several processes all return the same.

    Args:
        program: Dense, on the CPU.
        samples: Calibration images of all processes together.
        settings: Masks and solver.
        resources: Device and memory.
        space: Where to keep what a later run can go on from; nothing is kept without it.
        observer: Told about progress.

    Raises:
        UsageError: Settings contradict each other or do not fit the model.
        DataError: A selector needs labels that are not there, or images cannot be read.
        GraphError: The graph lacks what a selector needs.
        NumericsError: An activation is not finite.
        LayoutError: A solved weight breaks the pattern.
        ResourceError: Memory ran out with a single image.
    """
    settings, resources = fitted(resolve(settings or PruneSettings()), program), resources or ResourceSettings()
    prepared = prepare(program, samples, settings, resources)
    return prune_prepared(prepared, settings, resources, space=space, observer=observer or NullObserver())


def prune_prepared(
    prepared: Prepared,
    settings: PruneSettings,
    resources: ResourceSettings,
    *,
    space: Workspace | None,
    observer: Observer,
) -> Pruned:
    """`prune`, of what is known to fit together.

    Args:
        prepared: The program, its layers and the images.
        settings: With what their effort and solver decide.
        resources: As in `prune`.
        space: As in `prune`.
        observer: Told about progress.

    Raises:
        DataError, GraphError, NumericsError, LayoutError, ResourceError: As `prune`.
    """
    started = time.perf_counter()
    for d in prepared.decisions:
        observer.message(f"{d.name} {'x'.join(map(str, d.shape))}: {d.reason or 'pruned'}")
    with matmul_tf32(False), nullcontext(space) if space else Workspace.temporary() as place:
        prepared, solved, memory = _solve(settings, resources, prepared, place, observer)
    for note in solved.notes:
        observer.message(note)
    report = PruneReport(
        pattern=settings.pattern,
        selector=settings.selector,
        selection=solved.selection,
        sparsity=solved.shares,
        solver=solver_facts(settings.model_copy(update={"batch_size": memory.batch_size})),
        decisions=prepared.decisions,
        solves=solved.units,
        final=solved.final,
        notes=solved.notes,
        permutation=prepared.permutation,
        memory=memory,
        device=_where(prepared),
        calibration=prepared.calibration.info,
        calibration_items=prepared.calibration.indices,
        seconds=time.perf_counter() - started,
        seed=settings.seed,
    )
    tensors, masks = ({n: t.cpu() for n, t in part.items()} for part in (solved.tensors, solved.masks))
    return Pruned(prepared.program.on(CPU), tensors, masks, report, prepared.calibration)


def _where(prepared: Prepared) -> str:
    return f"{prepared.device}, {world()} processes" if world() > 1 else str(prepared.device)


def _solve(
    settings: PruneSettings, resources: ResourceSettings, prepared: Prepared, space: Workspace, observer: Observer
) -> tuple[Prepared, Solved, MemoryPlan]:
    """Permute and prune in the memory that is planned; where it is not enough after all, with fewer images at once."""

    def attempt(memory: MemoryPlan) -> tuple[Prepared, Solved]:
        ready = prepared.permuted(settings, memory, _checkpoints(settings, prepared, memory, space), observer)
        observer.stage("prune", f"{settings.pattern}, {len(ready.calibration)} images, on {_where(ready)}")
        with space.activations(memory) as storage:
            return ready, prune_program(
                ready.program,
                ready.batches(memory.batch_size),
                ready.weights,
                ready.pattern,
                replace(fitted_plan(settings, ready, memory), storage=storage),
                observer=observer,
                labels=ready.labels(memory.batch_size),
                checkpoints=_checkpoints(settings, ready, memory, space),
            )

    memory = fit_memory(settings, resources, prepared, space, observer)
    (ready, solved), memory = within_memory(attempt, memory, space, prepared.device, observer)
    return ready, solved, memory


def _checkpoints(settings: PruneSettings, prepared: Prepared, memory: MemoryPlan, space: Workspace) -> Checkpoints:
    """What a run with the same model, images and settings has left there."""
    values = settings.model_dump(include=set(PruneSettings.model_fields))
    # of what was planned first: solves before an allocation failed are kept
    rounding = {"batch_size": memory.planned_batch, "half": memory.storage == "half"}
    fingerprint = prepared.calibration.info.fingerprint
    key = run_key(state=tensors_digest(prepared.program.state_dict), data=fingerprint, **(values | rounding))
    return space.checkpoints(key, prepared.device)
