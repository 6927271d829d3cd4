"""What a user can set: one frozen class a stage, each field with its type, default, help and panel; no torch.

    base      the base class, and how a field appears on the command line
    model, calibration, prune, resources, export, runtime, validate, output     one stage's settings each
    policy    the limits of the gates
    jobs      the settings of each command, put together from those of its stages
    presets   what an effort or a solver sets where the user does not; applied after validation
    read      command line, TOML file and Python arguments -> settings, or one clear error
    write     settings -> the TOML file that repeats a run
    reference settings -> JSON Schema and the reference page

From these classes come the options and the help of every command, the keys of a TOML file and the arguments of the
Python functions.
"""

from __future__ import annotations

from snowsdeploy.settings.base import Option, Settings
from snowsdeploy.settings.calibration import CalibrationSettings
from snowsdeploy.settings.export import ExportSettings
from snowsdeploy.settings.jobs import CompareJob, MainJob, PlanJob, PruneJob, ValidateJob
from snowsdeploy.settings.model import ModelSettings
from snowsdeploy.settings.output import OutputSettings
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.profile import ProfileSettings
from snowsdeploy.settings.prune import PruneSettings
from snowsdeploy.settings.resources import ResourceSettings
from snowsdeploy.settings.runtime import ProviderName, RuntimeSettings
from snowsdeploy.settings.validate import MeasureSettings, ValidateSettings

__all__ = [
    "CalibrationSettings",
    "CompareJob",
    "ExportSettings",
    "GatePolicy",
    "MainJob",
    "MeasureSettings",
    "ModelSettings",
    "Option",
    "OutputSettings",
    "PlanJob",
    "ProfileSettings",
    "ProviderName",
    "PruneJob",
    "PruneSettings",
    "ResourceSettings",
    "RuntimeSettings",
    "Settings",
    "ValidateJob",
    "ValidateSettings",
]
