"""Settings become what is solved and how; what contradicts itself is said here, before anything is spent."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from snowsdeploy.distributed import share, world
from snowsdeploy.errors import UsageError
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.pruning.importance.masks import Selection
from snowsdeploy.pruning.prune import Plan
from snowsdeploy.pruning.solve.products import Products
from snowsdeploy.pruning.solve.reconstruct import Reconstruction
from snowsdeploy.selectors import SELECTORS, make_selector
from snowsdeploy.selectors.base import AbstractLossSelector, AbstractScore, AbstractSelector
from snowsdeploy.settings.prune import PruneSettings
from snowsdeploy.solver.cg import ConjugateGradient
from snowsdeploy.solver.newton import NewtonCG


def make_selection(settings: PruneSettings) -> Selection:
    """Which weights stay, and how that is decided.

    Raises:
        UsageError: A setting of the selector is not known, or settings do not fit the selector or the pattern.
    """
    selector = make_selector(settings.selector, settings.selector_arg)
    pattern, by_loss = Pattern.parse(settings.pattern), isinstance(selector, AbstractLossSelector)
    if settings.threshold != "method" and pattern.sparsity is None:
        raise UsageError(
            "--threshold is for unstructured patterns",
            seen=f"--threshold {settings.threshold} beside --pattern {settings.pattern}",
            allowed="--threshold beside a share of zeros, such as --pattern 90%",
            fix="leave --threshold out, or change --pattern",
        )
    if settings.threshold in ("row", "global") and not (by_loss or isinstance(selector, AbstractScore)):
        raise UsageError(
            f"--threshold {settings.threshold} needs a score for each weight",
            seen=f"--selector {settings.selector}, which chooses a layer's mask as a whole",
            allowed=f"--selector {_named(AbstractLossSelector, AbstractScore)}",
            fix="leave --threshold out, or use another --selector",
        )
    if (settings.mask_steps or 1) > 1 and not by_loss:
        raise UsageError(
            "--mask-steps is for selectors that read the loss",
            seen=f"--mask-steps {settings.mask_steps} beside --selector {settings.selector}",
            allowed=f"--selector {_named(AbstractLossSelector)}",
            fix="leave --mask-steps out, or use another --selector",
        )
    if settings.labels != "auto" and not by_loss:
        raise UsageError(
            "--labels is for selectors that read the loss",
            seen=f"--labels {settings.labels} beside --selector {settings.selector}",
            allowed=f"--selector {_named(AbstractLossSelector)}",
            fix="leave --labels out, or use another --selector",
        )
    across = selector.threshold if settings.threshold == "method" else settings.threshold
    if pattern.sparsity is not None and across == "global" and pattern.sparsity > settings.layer_cap:
        raise UsageError(
            "--layer-cap is below the share of zeros",
            seen=f"--layer-cap {settings.layer_cap:g} beside --pattern {settings.pattern}",
            allowed=f"from {pattern.sparsity:g} to 1",
            fix="raise --layer-cap, or ask for fewer zeros with --pattern",
        )
    return Selection(
        selector,
        None if settings.threshold == "method" else settings.threshold,
        settings.layer_cap,
        settings.mask_steps,
        settings.labels,
        settings.seed,
    )


def _named(*kinds: type[AbstractSelector]) -> str:
    return " or ".join(name for name, kind in SELECTORS.items() if issubclass(kind, kinds))


def make_plan(settings: PruneSettings, batches: int) -> Plan:
    """What the settings say to solve, for so many calibration batches of all processes together.

    Args:
        settings: With what their effort and solver decide (`settings.presets.resolve`).
        batches: Of all processes.

    Raises:
        UsageError: As `make_selection`; or `--held-back`, or how many processes there are, leaves a side without a
            batch.
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
        seed=settings.seed,
    )
    held_back = max(1, round(settings.held_back * batches)) if settings.held_back else 0
    if held_back >= batches:
        raise UsageError(
            "--held-back leaves no images to solve on",
            seen=f"--held-back {settings.held_back:g} of {batches} batch{'es' if batches > 1 else ''} of "
            f"{settings.batch_size}",
            allowed="at least one batch to solve on and one that is held back",
            fix="use more --samples or a smaller --batch-size",
        )
    if batches - held_back < world():
        raise UsageError(
            "there are more processes than batches of images",
            seen=f"{world()} processes, {batches - held_back} batches of {settings.batch_size} to solve on",
            allowed="at least one batch to solve on for each process",
            fix="start fewer processes, or use more --samples or a smaller --batch-size",
        )
    final = replace(method, newton=replace(newton, max_steps=settings.final_steps)) if settings.final_steps else None
    return Plan(
        method,
        selection=make_selection(settings),
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
