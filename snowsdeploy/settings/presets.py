"""What an effort or a solver sets where the user does not: applied to settings that are valid already."""

from __future__ import annotations

from typing import Any, TypeVar

from snowsdeploy.errors import UsageError
from snowsdeploy.settings.base import option_of
from snowsdeploy.settings.prune import PruneSettings

T = TypeVar("T", bound=PruneSettings)

_LAYERS: dict[str, Any] = {"horizon": 0, "joint": False, "targets": "input", "newton_steps": 0}
EFFORTS: dict[str, dict[str, Any]] = {
    "fast": {"solver": "k0"},
    "default": {},
    "max": {"newton_steps": 2, "final_steps": 2, "curvature_samples": "all"},
}
SOLVERS: dict[str, dict[str, Any]] = {
    "snows": {},
    "k0": _LAYERS,
    # the papers' moments, unweighted
    "none": _LAYERS | {"final_steps": 0, "sensitivity": 0.0},
}

_SOLVES = ("newton_steps", "final_steps", "reestimate_norms")  # what `--solver none` has no use for
DECIDED = frozenset(name for preset in (*EFFORTS.values(), *SOLVERS.values()) for name in preset)


def resolve(settings: T) -> T:
    """The same settings with everything that their effort and solver decide; what was given explicitly stays.

    What was decided here does not count as given (`model_fields_set`), so that another effort can decide it again.

    Raises:
        UsageError: `--solver none` beside settings of a solve.
    """
    given = settings.model_fields_set
    effort = {k: v for k, v in EFFORTS[settings.effort].items() if k not in given}
    solver = SOLVERS[effort.get("solver", settings.solver)]
    decided = effort | {k: v for k, v in solver.items() if k not in given}
    resolved = settings.model_copy(update=decided)
    resolved.model_fields_set.intersection_update(given)
    useless = ", ".join(option_of(name) for name in _SOLVES if getattr(resolved, name))
    if resolved.solver == "none" and useless:
        raise UsageError(
            "--solver none applies masks and nothing else",
            seen=f"--solver none beside {useless}",
            allowed="the settings of masks beside it",
            fix=f"leave {useless} out, or use --solver k0 or snows",
        )
    return resolved
