"""Trained network in, verified 2:4 sparse ONNX model out.

    import snowsdeploy

    report = snowsdeploy.prune_export(module, data=images, eval_data=(test_images, labels))
    report.verdict             # passed, failed or inconclusive, and why
    report.variants[0].sparse  # the ONNX file

Importing this costs no PyTorch: names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snowsdeploy.api import compare, export, inspect, judge, plan, profile, prune, prune_export, validate
    from snowsdeploy.data.samples import Samples
    from snowsdeploy.errors import SnowsDeployError
    from snowsdeploy.models.program import Program
    from snowsdeploy.patterns.pattern import Pattern
    from snowsdeploy.settings.export import ExportSettings
    from snowsdeploy.settings.policy import GatePolicy
    from snowsdeploy.settings.prune import PruneSettings
    from snowsdeploy.settings.resources import ResourceSettings
    from snowsdeploy.settings.validate import MeasureSettings
    from snowsdeploy.stages.prune import Pruned
    from snowsdeploy.tasks.user_metric import Score
    from snowsdeploy.values import ExportReport, PruneReport, Report, Verdict

    __version__: str

__all__ = [
    # the job and its stages
    "prune_export",
    "prune",
    "export",
    "validate",
    "judge",
    # beside it
    "inspect",
    "profile",
    "plan",
    "compare",
    # what flows
    "Program",
    "Samples",
    "Score",
    "Pattern",
    "Pruned",
    "PruneReport",
    "ExportReport",
    "Report",
    "Verdict",
    # settings
    "PruneSettings",
    "ResourceSettings",
    "ExportSettings",
    "MeasureSettings",
    "GatePolicy",
    # errors
    "SnowsDeployError",
    # the rest
    "__version__",
]  # fmt: skip

_MODULES = {
    **dict.fromkeys(__all__[:9], "snowsdeploy.api"),
    "Program": "snowsdeploy.models.program",
    "Samples": "snowsdeploy.data.samples",
    "Score": "snowsdeploy.tasks.user_metric",
    "Pattern": "snowsdeploy.patterns.pattern",
    "Pruned": "snowsdeploy.stages.prune",
    **dict.fromkeys(("PruneReport", "ExportReport", "Report", "Verdict"), "snowsdeploy.values"),
    "PruneSettings": "snowsdeploy.settings.prune",
    "ResourceSettings": "snowsdeploy.settings.resources",
    "ExportSettings": "snowsdeploy.settings.export",
    "MeasureSettings": "snowsdeploy.settings.validate",
    "GatePolicy": "snowsdeploy.settings.policy",
    "SnowsDeployError": "snowsdeploy.errors",
}


_NEED_TORCH = {"Program", "Samples", "Pruned"}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("snowsdeploy.install").installed_version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _NEED_TORCH:
        import_module("snowsdeploy.install").require_extra("prune", f"snowsdeploy.{name}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
