"""The pruning stage: a prepared model is solved within its memory, and its result lies in the run directory."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from hashlib import sha256

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from snowsdeploy.artifacts import MemoryPlan, PruneReport
from snowsdeploy.config import PruneSettings, RunConfig
from snowsdeploy.device import CPU, matmul_tf32
from snowsdeploy.distributed import Launch, from_first, rank, wait_for_all, world
from snowsdeploy.errors import OutputError
from snowsdeploy.files import save_tensors, write_text_atomic
from snowsdeploy.models.program import Program, saved_source
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.models.trace import adopt
from snowsdeploy.pipeline.keep_dense import keep_dense
from snowsdeploy.pipeline.memory import activation_storage, fit_memory, fitted_plan, within_memory
from snowsdeploy.pipeline.prepare import Prepared, prepare
from snowsdeploy.pipeline.settings import make_plan, solver_settings
from snowsdeploy.progress import Observer
from snowsdeploy.pruning.checkpoints import Checkpoints, run_key
from snowsdeploy.pruning.prune import Pruned, prune_program
from snowsdeploy.run_directory import RunDirectory
from snowsdeploy.validation.compilation import require_compiler
from snowsdeploy.validation.probe import require_provider


def prune_model(
    config: RunConfig, run: RunDirectory, observer: Observer, launch: Launch | None = None
) -> tuple[Program, Program, PruneReport]:
    """Load, choose layers and masks, solve; leaves `program.pt2`, `pruned.safetensors` and `prune.json`.

    Of several processes the first writes, and all return the same.

    Returns:
        The dense program, its channels permuted if the settings say so, the pruned one, and what happened.

    Raises:
        SnowsDeployError: As `prune_export`.
    """
    started = time.perf_counter()
    first = rank() == 0
    if from_first(run.taken_before(launch)):
        if from_first(run.prune.is_file()):  # what ended the processes came after the solve
            return load_run(run)
        config = config.model_copy(update={"resume": True})
    if first:
        run.require_free(force=config.force, resume=config.resume)
    require_provider(config)  # before minutes are spent
    if config.compile_for:
        require_compiler()
    prepared = prepare(config, observer)
    make_plan(config, prepared.count(config.batch_size))  # says what contradicts itself
    if first:
        run.prepare(force=config.force, resume=config.resume)
        if launch:
            write_text_atomic(run.launch, f"{launch.job}\n")
    wait_for_all()
    for d in prepared.decisions:
        observer.message(f"{d.name} {'x'.join(map(str, d.shape))}: {d.reason or 'pruned'}")
    with matmul_tf32(False):
        prepared, pruned, memory = _solve(config, prepared, run, observer)
    for note in pruned.notes:
        observer.message(note)
    report = PruneReport(
        pattern=config.pattern,
        selector=config.selector,
        selection=pruned.selection,
        sparsity=pruned.shares,
        solver=solver_settings(config.model_copy(update={"batch_size": memory.batch_size})),
        decisions=prepared.decisions,
        solves=pruned.units,
        final=pruned.final,
        notes=pruned.notes,
        permutation=prepared.permutation,
        memory=memory,
        device=_where(prepared),
        calibration=prepared.calibration.info,
        calibration_items=prepared.calibration.indices,
        seconds=time.perf_counter() - started,
        seed=config.seed,
    )
    program = prepared.program.on(CPU)
    tensors = {name: tensor.cpu() for name, tensor in pruned.tensors.items()}
    if config.keep_dense_until_gate:
        batches = list(prepared.calibration.batches(memory.batch_size))
        tensors, report = keep_dense(program, tensors, report, batches=batches, config=config, observer=observer)
        report = report.model_copy(update={"seconds": time.perf_counter() - started})
    if first:
        program.save(run.program)
        save_tensors(run.weights, tensors)
        write_text_atomic(run.prune, report.model_dump_json(indent=2) + "\n")
        shutil.rmtree(run.layers, ignore_errors=True)
    wait_for_all()
    return program, program.with_weights(tensors), report


def _where(prepared: Prepared) -> str:
    return f"{prepared.device}, {world()} processes" if world() > 1 else str(prepared.device)


def _solve(
    config: RunConfig, prepared: Prepared, run: RunDirectory, observer: Observer
) -> tuple[Prepared, Pruned, MemoryPlan]:
    """Permute and prune in the memory that is planned; where it is not enough after all, with fewer images at once."""

    def attempt(memory: MemoryPlan) -> tuple[Prepared, Pruned]:
        ready = prepared.permuted(config, memory, _checkpoints(config, prepared, memory, run), observer)
        observer.stage("prune", f"{config.pattern}, {len(ready.calibration)} images, on {_where(ready)}")
        with activation_storage(memory, run) as storage:
            return ready, prune_program(
                ready.program,
                ready.batches(memory.batch_size),
                ready.weights,
                ready.pattern,
                replace(fitted_plan(config, ready, memory), storage=storage),
                observer=observer,
                labels=ready.labels(memory.batch_size),
                checkpoints=_checkpoints(config, ready, memory, run),
            )

    memory = fit_memory(config, prepared, run, observer)
    (ready, pruned), memory = within_memory(attempt, memory, run, prepared.device, observer)
    return ready, pruned, memory


def _checkpoints(config: RunConfig, prepared: Prepared, memory: MemoryPlan, run: RunDirectory) -> Checkpoints:
    """What a run with the same model, images and settings has left there."""
    settings = config.model_dump(include=set(PruneSettings.model_fields) - {"data"})
    # of what was planned first: solves before an allocation failed are kept
    rounding = {"batch_size": memory.planned_batch, "half": memory.storage == "half"}
    fingerprint = prepared.calibration.info.fingerprint
    key = run_key(state=_digest(prepared.program), data=fingerprint, **(settings | rounding))
    return Checkpoints(run.layers, key, prepared.device)


def _digest(program: Program) -> str:
    digest = sha256()
    for name, tensor in sorted(program.state_dict.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()


def load_run(run: RunDirectory) -> tuple[Program, Program, PruneReport]:
    """What the pruning stage left: dense program, pruned program, report.

    Raises:
        OutputError: The directory is not a run, or a file in it is damaged.
    """
    missing = [p.name for p in (run.program, run.weights, run.prune) if not p.is_file()]
    if missing:
        raise OutputError(
            "the directory holds no pruning run",
            seen=f"{run.path}: no {', '.join(missing)}",
            fix="run snowsdeploy prune or prune-export with --out on it first",
        )
    try:
        report = PruneReport.model_validate_json(run.prune.read_text(encoding="utf-8"))
        weights = load_file(run.weights)
    except (ValueError, OSError, SafetensorError) as error:
        raise OutputError("the pruning run is damaged", seen=f"{run.path}: {error}", fix="run it again") from error
    loaded = load_model(ModelRequest(str(run.program)))
    source = saved_source(run.program)
    if loaded.preprocessing is None or source is None or isinstance(loaded.model, nn.Module):
        raise OutputError("the pruning run does not say how it was made", seen=run.program, fix="run it again")
    program = adopt(loaded.model, loaded.preprocessing, source)
    return program, program.with_weights(weights), report
