"""The pruning stage: settings become a plan, the plan is run, its result lies in the run directory."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from hashlib import sha256
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from snowsdeploy.artifacts import PruneReport
from snowsdeploy.config import PruneSettings, RunConfig
from snowsdeploy.data.open import open_images
from snowsdeploy.errors import OutputError, UsageError
from snowsdeploy.files import atomic_path, write_text_atomic
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program, saved_source
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.models.trace import adopt
from snowsdeploy.pipeline.export import require_ends
from snowsdeploy.pipeline.keep_dense import keep_dense
from snowsdeploy.pipeline.load import load_program
from snowsdeploy.pipeline.memory import activation_storage, fit_memory
from snowsdeploy.pipeline.permute import permute_channels
from snowsdeploy.progress import Observer
from snowsdeploy.pruning.checkpoints import Checkpoints, run_key
from snowsdeploy.pruning.masks import Selection
from snowsdeploy.pruning.prune import Plan, prune_program
from snowsdeploy.pruning.reconstruct import Reconstruction
from snowsdeploy.run_directory import RunDirectory
from snowsdeploy.selectors import make_selector
from snowsdeploy.solver.cg import ConjugateGradient
from snowsdeploy.solver.newton import NewtonCG
from snowsdeploy.sparsity.pattern import Pattern
from snowsdeploy.validation.compilation import require_compiler
from snowsdeploy.validation.probe import require_provider


def prune_model(config: RunConfig, run: RunDirectory, observer: Observer) -> tuple[Program, Program, PruneReport]:
    """Load, choose layers and masks, solve; leaves `program.pt2`, `pruned.safetensors` and `prune.json`.

    Returns:
        The dense program, its channels permuted if the settings say so, the pruned one, and what happened.

    Raises:
        SnowsDeployError: As `prune_export`.
    """
    started = time.perf_counter()
    run.require_free(force=config.force, resume=config.resume)
    require_provider(config)  # before minutes are spent
    if config.compile_for:
        require_compiler()
    observer.stage("load", config.model)
    torch.manual_seed(config.seed)
    program = load_program(config, config.data)
    require_ends(config, program)
    pattern = Pattern.parse(config.pattern)
    decisions = decide_layers(ProgramGraph(program), pattern, config.include, config.exclude)
    calibration = open_images(config.data, program.preprocessing).sample(config.samples, config.seed)
    if config.eval_data:  # opened now, so that a wrong path is known before minutes are spent
        open_images(config.eval_data, program.preprocessing, option="--eval-data")
    run.prepare(force=config.force, resume=config.resume)
    settings = config.model_dump(include=set(PruneSettings.model_fields) - {"data"})
    observer.stage("prune", f"{config.pattern}, {len(calibration)} images")
    for decision in decisions:
        observer.message(_decision_text(decision.name, decision.shape, decision.reason))
    batches = list(calibration.batches(config.batch_size))
    weights = [d.weight for d in decisions if d.prunable and d.weight]
    permutation = None
    if config.permute:
        program, permutation = permute_channels(
            program, weights, pattern, batches, score=config.permute_score, seed=config.seed, observer=observer
        )
        observer.message(str(permutation))
    memory = fit_memory(
        config,
        run,
        program,
        weights,
        make_plan(config, len(batches)),
        image=batches[0][:1],
        images=len(calibration),
        observer=observer,
    )
    config = config.model_copy(update={"batch_size": memory.batch_size})
    batches = list(calibration.batches(config.batch_size))
    rounding = {"batch_size": memory.batch_size, "half": memory.storage == "half"}
    key = run_key(state=_digest(program), data=calibration.info.fingerprint, **(settings | rounding))
    with activation_storage(memory, run) as storage:
        pruned = prune_program(
            program,
            batches,
            weights,
            pattern,
            replace(make_plan(config, len(batches)), storage=storage),
            observer=observer,
            labels=None if calibration.labels is None else torch.from_numpy(calibration.labels),
            checkpoints=Checkpoints(run.layers, key),
        )
    for note in pruned.notes:
        observer.message(note)
    report = PruneReport(
        pattern=config.pattern,
        selector=config.selector,
        selection=pruned.selection,
        sparsity=pruned.shares,
        solver=solver_settings(config),
        decisions=decisions,
        solves=pruned.units,
        final=pruned.final,
        notes=pruned.notes,
        permutation=permutation,
        memory=memory,
        calibration=calibration.info,
        calibration_items=calibration.indices,
        seconds=time.perf_counter() - started,
        seed=config.seed,
    )
    tensors = pruned.tensors
    if config.keep_dense_until_gate:
        tensors, report = keep_dense(program, tensors, report, batches=batches, config=config, observer=observer)
        report = report.model_copy(update={"seconds": time.perf_counter() - started})
    program.save(run.program)
    with atomic_path(run.weights) as path:
        save_file({n: w.contiguous() for n, w in tensors.items()}, path)
    write_text_atomic(run.prune, report.model_dump_json(indent=2) + "\n")
    shutil.rmtree(run.layers, ignore_errors=True)
    return program, program.with_weights(tensors), report


def make_plan(settings: PruneSettings, batches: int) -> Plan:
    """What the settings say to solve, for so many calibration batches.

    Raises:
        UsageError: `--held-back` leaves a side without a batch.
    """
    exact = settings.newton_steps == 0 or settings.horizon == 0
    newton = NewtonCG(max_steps=settings.newton_steps, cg=ConjugateGradient(max_iterations=settings.cg_steps))
    curvature = settings.curvature_samples
    method = Reconstruction(
        horizon=settings.horizon,
        targets=_target_share(settings.targets),
        newton=None if exact else newton,
        exact=settings.solver != "none",
        curvature=settings.curvature,
        curvature_batches=None if curvature == "all" else max(1, curvature // settings.batch_size),
        preconditioner=settings.preconditioner,
        free=settings.variables == "all",
        reduced=torch.bfloat16 if settings.products == "bfloat16" else None,
    )
    held_back = max(1, round(settings.held_back * batches)) if settings.held_back else 0
    if held_back >= batches:
        raise UsageError(
            "--held-back leaves no images to solve on",
            seen=f"{batches} batch of {settings.batch_size}",
            fix="use more --samples or a smaller --batch-size",
        )
    final = replace(method, newton=replace(newton, max_steps=settings.final_steps)) if settings.final_steps else None
    return Plan(
        method,
        selection=Selection(
            make_selector(settings.selector, settings.selector_arg),
            None if settings.threshold == "method" else settings.threshold,
            settings.layer_cap,
            settings.mask_steps,
            settings.labels,
            settings.seed,
        ),
        joint=settings.joint,
        layers=settings.solve_layers,
        sensitivity=settings.sensitivity,
        held_back=held_back,
        reestimate=settings.reestimate_norms,
        final=final,
    )


def _target_share(targets: float | Literal["dense", "input", "auto"]) -> float | Literal["auto"]:
    if targets == "dense":
        return 1.0
    return 0.0 if targets == "input" else targets


_SOLVER_SETTINGS = (
    "effort",
    "solver",
    "held_back",
    "horizon",
    "joint",
    "solve_layers",
    "targets",
    "sensitivity",
    "curvature",
    "preconditioner",
    "newton_steps",
    "cg_steps",
    "curvature_samples",
    "products",
    "variables",
    "reestimate_norms",
    "final_steps",
    "batch_size",
)


def solver_settings(settings: PruneSettings) -> dict[str, str | int | float | bool]:
    """The settings that decide the solve, for reports and provenance."""
    values = {name: getattr(settings, name) for name in _SOLVER_SETTINGS}
    return {name: "all" if value is None else value for name, value in values.items()}


def _digest(program: Program) -> str:
    digest = sha256()
    for name, tensor in sorted(program.state_dict.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()


def _decision_text(name: str, shape: tuple[int, ...], reason: str) -> str:
    return f"{name} {'x'.join(map(str, shape))}: {reason or 'pruned'}"


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
