"""A module or program that a Python program holds -> what a loader would give."""

from __future__ import annotations

import copy

from torch import nn
from torch.export import ExportedProgram

from snowsdeploy.data.digest import tensors_digest
from snowsdeploy.errors import SourceError, cause
from snowsdeploy.models.fp32 import in_fp32
from snowsdeploy.models.source import LoadedModel, require_finite
from snowsdeploy.models.timm_models import timm_preprocessing
from snowsdeploy.models.unwrap import unwrapped
from snowsdeploy.models.usable import require_usable
from snowsdeploy.values import SourceInfo


def name_of(model: object) -> str:
    """How reports call it."""
    return "torch.export program" if isinstance(model, ExportedProgram) else f"{type(model).__name__} module"


def adopt_object(model: object) -> LoadedModel:
    """Take a module, on any device and in any mode, or a program; the caller's own stays as it is.

    Raises:
        SourceError: It is neither, or cannot be copied.
        NumericsError: A weight is NaN or Inf.
    """
    if isinstance(model, ExportedProgram):
        require_finite(model)
        exported, words = in_fp32(model)
        digest, remarks = tensors_digest(model.state_dict), (words,) if words else ()
        info = SourceInfo(source=name_of(model), format="program", sha256=digest, remarks=remarks)
        return LoadedModel(exported, info, None)
    if not isinstance(model, nn.Module):
        raise SourceError(
            "model is nothing that can be pruned",
            seen=f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__,
            allowed="a path or source as the command line takes it, a torch.nn.Module, or a torch.export program",
            fix=f"pass an instance: {model.__name__}(...)" if isinstance(model, type) else "pass one of these as model",
        )
    require_usable(unwrapped(model))
    try:
        module = copy.deepcopy(unwrapped(model))
    except Exception as error:  # a module of the user's may hold anything
        raise SourceError(
            "the module cannot be copied, and must not be changed",
            seen=f"{type(model).__name__}: {cause(error)}",
            allowed="a module that copy.deepcopy can copy",
            fix="pass a module without open files, locks or tensors that are part of a graph",
        ) from error
    module = module.cpu().float().eval().requires_grad_(False)
    require_finite(module)
    digest = tensors_digest(module.state_dict())
    info = SourceInfo(source=name_of(model), format="module", arch=type(model).__name__, sha256=digest)
    return LoadedModel(module, info, timm_preprocessing(module, {}))
