"""Settings become what is solved and how."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from snowsdeploy.config import PruneSettings
from snowsdeploy.distributed import share, world
from snowsdeploy.errors import UsageError
from snowsdeploy.pruning.importance.masks import Selection
from snowsdeploy.pruning.prune import Plan
from snowsdeploy.pruning.solve.products import Products
from snowsdeploy.pruning.solve.reconstruct import Reconstruction
from snowsdeploy.selectors import make_selector
from snowsdeploy.solver.cg import ConjugateGradient
from snowsdeploy.solver.newton import NewtonCG


def make_plan(settings: PruneSettings, batches: int) -> Plan:
    """What the settings say to solve, for so many calibration batches of all processes together.

    Raises:
        UsageError: `--held-back`, or how many processes there are, leaves a side without a batch.
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
        curvature_batches=None if curvature == "all" else share(max(1, curvature // settings.batch_size)),
        preconditioner=settings.preconditioner,
        free=settings.variables == "all",
        products=Products(settings.products, compiler="inductor" if settings.compile_products else None),
    )
    held_back = max(1, round(settings.held_back * batches)) if settings.held_back else 0
    if held_back >= batches:
        raise UsageError(
            "--held-back leaves no images to solve on",
            seen=f"{batches} batch of {settings.batch_size}",
            fix="use more --samples or a smaller --batch-size",
        )
    if batches - held_back < world():
        raise UsageError(
            "there are more processes than batches of images",
            seen=f"{world()} processes, {batches - held_back} batches of {settings.batch_size} to solve on",
            fix="start fewer processes, or use more --samples or a smaller --batch-size",
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
        held_back=share(batches) - share(batches - held_back),
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
    "compile_products",
    "variables",
    "reestimate_norms",
    "final_steps",
    "batch_size",
)


def solver_settings(settings: PruneSettings) -> dict[str, str | int | float | bool]:
    """The settings that decide the solve, for reports and provenance."""
    values = {name: getattr(settings, name) for name in _SOLVER_SETTINGS}
    return {name: "all" if value is None else value for name, value in values.items()}
