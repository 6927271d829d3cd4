"""Source string -> model: which loader takes it, and what comes out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from snowsdeploy.artifacts import Preprocessing, SourceInfo
from snowsdeploy.errors import NumericsError, SourceError
from snowsdeploy.models.checkpoint import Checkpoint, fit_state_dict, read_checkpoint
from snowsdeploy.models.factory import call_factory
from snowsdeploy.models.formats import FileFormat, detect_format

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".bin", ".tar", ".safetensors", ".pt2")


@dataclass(frozen=True)
class ModelRequest:
    """What the user said about the model; see the options of the same names."""

    source: str
    arch: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    allow_pickle: bool = False


@dataclass(frozen=True)
class LoadedModel:
    """A module, or a program that is already exported.

    Attributes:
        model: In evaluation mode, float32.
        source: For the report.
        preprocessing: What the architecture or the file says; None when neither says anything.
    """

    model: nn.Module | ExportedProgram
    source: SourceInfo
    preprocessing: Preprocessing | None


def load_model(request: ModelRequest) -> LoadedModel:
    """Load any MODEL.

    Raises:
        SourceError: The file, the architecture or the weights are not usable.
        NumericsError: A weight is NaN or Inf.
    """
    text = request.source
    if text.startswith("timm:"):
        loaded = _from_timm(text.removeprefix("timm:"), request)
    elif Path(text).exists() or text.endswith(CHECKPOINT_SUFFIXES):
        loaded = _from_file(Path(text), request)
    elif ":" in text:
        module = call_factory(text, request.model_args, option="MODEL")
        loaded = LoadedModel(module, SourceInfo(source=text, format="factory", arch=text), timm_preprocessing(module))
    else:
        raise SourceError(
            "MODEL is not a file that exists, nor a model name",
            seen=text,
            allowed=f"a path ({', '.join(CHECKPOINT_SUFFIXES)}), timm:NAME, or package.module:factory",
            fix="check the path",
        )
    _require_finite(loaded.model)
    if isinstance(loaded.model, nn.Module):
        loaded.model.float().eval().requires_grad_(False)
    return loaded


def _from_timm(name: str, request: ModelRequest) -> LoadedModel:
    module = _timm_module(name, request.model_args, pretrained=True, option="MODEL")
    return LoadedModel(module, SourceInfo(source=request.source, format="timm", arch=name), timm_preprocessing(module))


def _from_file(path: Path, request: ModelRequest) -> LoadedModel:
    kind = detect_format(path)
    with path.open("rb") as stream:
        digest = file_digest(stream, "sha256").hexdigest()
    if kind is FileFormat.PT2:
        exported, preprocessing = read_pt2(path)
        return LoadedModel(exported, SourceInfo(source=str(path), format="pt2", sha256=digest), preprocessing)
    checkpoint = read_checkpoint(path, kind, allow_pickle=request.allow_pickle)
    arch = request.arch or checkpoint.arch
    source = SourceInfo(
        source=str(path),
        format="safetensors" if kind is FileFormat.SAFETENSORS else "checkpoint",
        arch=arch,
        sha256=digest,
    )
    module = _module_for(checkpoint, arch, request)
    return LoadedModel(module, source, timm_preprocessing(module))


def _module_for(checkpoint: Checkpoint, arch: str | None, request: ModelRequest) -> nn.Module:
    if checkpoint.module is not None:
        return checkpoint.module
    if arch is None:
        raise SourceError(
            "the checkpoint holds weights but does not name its architecture",
            seen=request.source,
            allowed="a timm name or module:factory",
            fix="add --arch NAME, for example --arch resnet50 or --arch my_models:build",
        )
    if ":" in arch:
        module = call_factory(arch, request.model_args, option="--arch")
    else:
        module = _timm_module(arch, request.model_args, pretrained=False, option="--arch")
    fit_state_dict(module, checkpoint.state_dict, arch)
    return module


def _timm_module(name: str, arguments: Mapping[str, Any], *, pretrained: bool, option: str) -> nn.Module:
    import timm  # noqa: PLC0415 - seconds of imports that a factory model does not need

    if not timm.is_model(name.partition(".")[0]):
        close = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), 3)
        raise SourceError(
            f"{option} names no timm model",
            seen=name,
            allowed="a timm model name, or module:factory",
            fix=f"did you mean {', '.join(close)}?" if close else "see timm.list_models()",
        )
    try:
        module: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # timm and the hub raise many types
        raise SourceError(
            f"timm cannot create {name}",
            seen=f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}",
            fix="check the network, or download the checkpoint and pass its path with --arch"
            if pretrained
            else "check --model-arg",
        ) from error
    return module


def timm_preprocessing(module: nn.Module) -> Preprocessing | None:
    """The preprocessing that a timm model declares, None for other modules."""
    if not hasattr(module, "pretrained_cfg"):
        return None
    from timm.data import resolve_model_data_config  # noqa: PLC0415 - as above

    config = resolve_model_data_config(module)
    keys = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
    return Preprocessing(**{key: config[key] for key in keys})


def read_pt2(path: Path) -> tuple[ExportedProgram, Preprocessing | None]:
    """A program, and the preprocessing that `Program.save` put beside it.

    Raises:
        SourceError: The file cannot be loaded.
    """
    extra = {"preprocessing.json": ""}
    try:
        exported = torch.export.load(path, extra_files=extra)
    except Exception as error:  # torch.export raises many types on a damaged file
        raise SourceError(
            "the .pt2 file cannot be loaded", seen=f"{path}: {str(error).splitlines()[0][:200]}", fix="export it again"
        ) from error
    text = extra["preprocessing.json"]
    return exported, Preprocessing.model_validate_json(text) if text else None


def _require_finite(model: nn.Module | ExportedProgram) -> None:
    for name, tensor in model.state_dict.items() if isinstance(model, ExportedProgram) else model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise NumericsError(
                "a weight of the model is NaN or Inf",
                seen=f"{name}: {bad} of {tensor.numel()} values",
                fix="use a checkpoint from before the training diverged",
            )
