"""Source string -> model: which loader takes it, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from snowsdeploy.errors import NumericsError, SourceError, UsageError
from snowsdeploy.files import sha256_of
from snowsdeploy.models.checkpoint import Checkpoint, StateDict, read_checkpoint
from snowsdeploy.models.factory import call_factory
from snowsdeploy.models.formats import FileFormat, detect_format
from snowsdeploy.models.fp32 import in_fp32
from snowsdeploy.models.onnx.importer import ImportedOnnx, import_onnx
from snowsdeploy.models.pt2 import read_pt2
from snowsdeploy.models.timm_models import create_timm_model, timm_preprocessing
from snowsdeploy.models.unwrap import unwrapped
from snowsdeploy.models.usable import require_usable
from snowsdeploy.models.weights import load_weights
from snowsdeploy.user_code import contained
from snowsdeploy.values import ModelSignature, Preprocessing, SourceInfo

__all__ = ["LoadedModel", "ModelRequest", "load_model", "read_pt2"]

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".bin", ".tar", ".safetensors", ".pt2", ".onnx")


@dataclass(frozen=True)
class ModelRequest:
    """What the user said about the model.

    Attributes:
        source: MODEL: a file, `timm:NAME`, or `package.module:factory`.
        arch: `--arch`: a timm name or `module:factory`, for a checkpoint.
        model_args: `--model-arg`: keyword arguments of the architecture.
        allow_pickle: `--allow-pickle`: files may run code.
        state_key: `--state-key`: which state dict of a file.
        strip_prefix: `--strip-prefix`: what its names have before those of the architecture.
    """

    source: str
    arch: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    allow_pickle: bool = False
    state_key: str | None = None
    strip_prefix: str | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A module, or a program that is already exported.

    Attributes:
        model: In evaluation mode, float32, no gradients.
        source: For the report.
        preprocessing: What the architecture or the file says; None when neither says anything.
        signature: Names of inputs and outputs, of a program that this package saved.
        imported: What an ONNX file says beside its module.
    """

    model: nn.Module | ExportedProgram
    source: SourceInfo
    preprocessing: Preprocessing | None
    signature: ModelSignature | None = None
    imported: ImportedOnnx | None = None


def load_model(request: ModelRequest) -> LoadedModel:
    """Load any MODEL.

    Raises:
        SourceError: The file, the architecture or the weights are not usable.
        NumericsError: A weight is NaN or Inf.
        UsageError: `--arch` or `--model-arg` beside a MODEL that has its own architecture.
    """
    text = request.source
    if text.startswith("timm:"):
        _refuse_arch(request)
        name = text.removeprefix("timm:")
        module = create_timm_model(name, request.model_args, pretrained=True, option="MODEL")
        preprocessing = timm_preprocessing(module, request.model_args)
        loaded = LoadedModel(module, SourceInfo(source=text, format="timm", arch=name), preprocessing)
    elif Path(text).exists() or text.endswith(CHECKPOINT_SUFFIXES):
        loaded = _from_file(Path(text), request)
    elif ":" in text:
        _refuse_arch(request)
        module = call_factory(text, request.model_args, option="MODEL")
        preprocessing = timm_preprocessing(module, {})
        loaded = LoadedModel(module, SourceInfo(source=text, format="factory", arch=text), preprocessing)
    else:
        raise SourceError(
            "MODEL is not a file that exists, nor a model name",
            seen=text,
            allowed=f"a path ({', '.join(CHECKPOINT_SUFFIXES)}), timm:NAME, or package.module:factory",
            fix=f"check the path; for a model of timm write timm:{text}" if text.isidentifier() else "check the path",
        )
    if isinstance(loaded.model, nn.Module):
        require_usable(loaded.model)
    require_finite(loaded.model)
    if isinstance(loaded.model, nn.Module):
        loaded.model.float().eval().requires_grad_(False)
        return loaded
    exported, words = in_fp32(loaded.model)
    source = loaded.source.model_copy(update={"remarks": (words,) if words else ()})
    return replace(loaded, model=exported, source=source)


def _refuse_arch(request: ModelRequest) -> None:
    if request.arch is not None:
        raise UsageError(
            "--arch is for a checkpoint, and this MODEL names its own architecture",
            seen=f"{request.source} --arch {request.arch}",
            allowed="--arch beside a file that holds weights alone",
            fix="leave --arch out, or pass the checkpoint as MODEL",
        )


def _from_file(path: Path, request: ModelRequest) -> LoadedModel:
    kind = detect_format(path)
    if kind is FileFormat.ONNX:
        return _from_onnx(path, request)
    digest = sha256_of(path)
    if kind is FileFormat.PT2:
        _refuse_arch(request)
        saved = read_pt2(path, allow_pickle=request.allow_pickle)
        info = SourceInfo(source=str(path), format="pt2", sha256=digest)
        return LoadedModel(saved.exported, info, saved.preprocessing, saved.signature)
    checkpoint = read_checkpoint(path, kind, allow_pickle=request.allow_pickle)
    module, arch, weights = _module_for(checkpoint, request)
    source = SourceInfo(
        source=str(path),
        format="safetensors" if kind is FileFormat.SAFETENSORS else "checkpoint",
        arch=arch,
        sha256=digest,
        weights=weights or None,
    )
    return LoadedModel(module, source, timm_preprocessing(module, request.model_args))


def _from_onnx(path: Path, request: ModelRequest) -> LoadedModel:
    _refuse_arch(request)
    imported = import_onnx(path)
    _require_single_precision(imported, path)
    written = f"written by {imported.producer or 'an unnamed exporter'}, opset {imported.opset}"
    info = SourceInfo(source=str(path), format="onnx", sha256=imported.sha256, remarks=(written,))
    return LoadedModel(imported.module, info, None, imported=imported)


def _require_single_precision(imported: ImportedOnnx, path: Path) -> None:
    file = imported.file
    other = [
        f"weight {n} {file.origins[k].dtype}" for k, n in file.layers.items() if file.origins[k].dtype != "float32"
    ]
    other += [f"input {info}" for info in imported.inputs if info.dtype in ("float16", "bfloat16", "float64")]
    if other:
        raise SourceError(
            "the ONNX file is not in FP32, in which weights are solved and parity is proven",
            seen=f"{path}: {', '.join(other[:3])}",
            allowed="weights and inputs in float32",
            fix="pass the FP32 file, and --precision fp16 for files in half precision",
        )


def _module_for(checkpoint: Checkpoint, request: ModelRequest) -> tuple[nn.Module, str, str]:
    """The module with the checkpoint's weights, its architecture's name, and which of the file's weights they are."""
    pickled = None if checkpoint.module is None else unwrapped(checkpoint.module)
    if pickled is not None and request.arch is None:
        return pickled, type(pickled).__name__, ""
    arch = request.arch or checkpoint.arch
    if arch is None:
        raise SourceError(
            "the checkpoint holds weights but does not name its architecture",
            seen=request.source,
            allowed="a timm name or module:factory",
            fix="add --arch NAME, for example --arch resnet50 or --arch my_models:build",
        )
    option = "--arch" if request.arch else "the checkpoint's arch (--arch overrides it)"
    if ":" in arch and request.arch is None:
        raise SourceError(
            "the checkpoint names a factory, and a file must not choose which code runs",
            seen=arch,
            allowed="a checkpoint that names a timm model",
            fix=f"if you trust it, add --arch {arch}",
        )
    if ":" in arch:
        module = call_factory(arch, request.model_args, option=option)
    else:
        module = create_timm_model(arch, request.model_args, pretrained=False, option=option)
    state_dicts = checkpoint.state_dicts if pickled is None else (StateDict("", pickled.state_dict()),)
    key, prefix = request.state_key, request.strip_prefix
    weights = load_weights(module, state_dicts, arch, state_key=key, strip_prefix=prefix)
    return module, arch, str(weights)


def require_finite(model: nn.Module | ExportedProgram) -> None:
    """Refuse a model with a weight that is no number; attention masks of minus infinity are buffers, and allowed.

    Raises:
        NumericsError: There is one.
    """
    parameters = {name for name, _ in model.named_parameters()}
    if isinstance(model, ExportedProgram):
        tensors = model.state_dict
    else:
        with contained(f"state_dict of {type(model).__name__}"):
            tensors = model.state_dict()
    for name, tensor in tensors.items():
        bad = _bad_values(tensor, parameter=name in parameters)
        if bad:
            raise NumericsError(
                "a weight of the model is NaN or Inf",
                seen=f"{name}: {bad} of {tensor.numel()} values",
                allowed="finite weights",
                fix="use a checkpoint from before the training diverged",
            )


def _bad_values(tensor: Tensor, *, parameter: bool) -> int:
    if not tensor.is_floating_point():
        return 0
    bad = ~torch.isfinite(tensor)
    # An attention mask is a buffer that holds -Inf on purpose.
    return int((bad if parameter else bad & (tensor != -torch.inf)).sum())
