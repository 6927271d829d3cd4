"""The `torch` format -> a module whose pruned linear layers run on PyTorch's 2:4 kernels.

loaded = load_semi_structured("run/torch")
with torch.inference_mode():
    scores = loaded.model(images.to("cuda", torch.float16))
print(loaded.layers)  # each pruned layer: converted, or why not
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from snowsdeploy.errors import ProviderError, SourceError, UsageError, cause
from snowsdeploy.models.pt2 import read_pt2
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.patterns.violations import count_violations
from snowsdeploy_exporters.formats.pytorch import PROGRAM, WEIGHTS

CONVERTED = "converted"
CAPABILITY = (8, 0)
MULTIPLE = 16  # of rows and columns, cuSPARSELt in FP16 and BF16
DTYPES = (torch.float16, torch.bfloat16)
_RULE = Pattern(2, 4)


@dataclass(frozen=True)
class SemiStructured:
    """A loaded model.

    Attributes:
        model: Takes images `[batch, C, H, W]` on its device and in its type.
        layers: Each pruned layer -> `converted`, or why it runs dense.
    """

    model: nn.Module
    layers: dict[str, str]


def load_semi_structured(
    folder: Path | str,
    device: str = "cuda",
    dtype: torch.dtype = torch.float16,
    convert: Callable[[Tensor], Tensor] = torch.sparse.to_sparse_semi_structured,
) -> SemiStructured:
    """Load a model and give its pruned linear layers sparse weights where the hardware takes them.

    Args:
        folder: What `--format torch` wrote.
        device: `cuda`, `cuda:1` ..., or `cpu`, where every layer stays dense.
        dtype: Of weights and images; float16 or bfloat16 for sparse kernels.
        convert: Dense weight `[out, in]` -> sparse one that linear layers take.

    Raises:
        ProviderError: There is no such GPU.
        UsageError: The device is of another kind.
        SourceError: The folder does not hold the format.
    """
    folder, place = Path(folder), _device(device)
    layers = _pruned(folder / WEIGHTS)
    exported = read_pt2(folder / PROGRAM).exported
    if place.type != "cpu":
        exported = move_to_device_pass(exported, str(place))  # also tensors made in the graph
    model: nn.Module = exported.module().to(place, dtype)
    found = {}
    for layer in layers:
        weight = model.get_parameter(layer["weight"])
        reason = _hardware(place) or refusal(weight, layer["kind"])
        if not reason:
            _replace(model, layer["weight"], convert(weight.detach()))
        found[layer["name"]] = reason or CONVERTED
    return SemiStructured(model, found)


def refusal(weight: Tensor, kind: str) -> str:
    """Why PyTorch's kernels cannot take a weight, empty when they can.

    Args:
        weight: As the layer holds it, `[out, in]` for linear layers.
        kind: `linear` or `conv`.
    """
    if kind != "linear" or weight.dim() != 2:
        return "a convolution: PyTorch has 2:4 kernels for linear layers only"
    if weight.dtype not in DTYPES:
        return f"{str(weight.dtype).removeprefix('torch.')}: needs float16 or bfloat16"
    if any(size == 0 or size % MULTIPLE for size in weight.shape):
        return f"{'x'.join(map(str, weight.shape))}: both must be multiples of {MULTIPLE}"
    if not weight.is_contiguous():
        return "its weight is not contiguous"
    if count_violations((weight != 0).cpu().numpy(), _RULE, 1)[
        1
    ]:  # the conversion would prune it further without a word
        return f"its weight does not hold {_RULE}"
    return ""


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type not in ("cuda", "cpu"):
        raise UsageError(
            "semi-structured weights need an NVIDIA GPU",
            seen=name,
            allowed="cuda, or cpu to stay dense",
            fix='pass device="cuda", or device="cpu" for the same model with dense kernels',
        )
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise ProviderError(
            "semi-structured weights need an NVIDIA GPU",
            seen=f"{name}: {torch.cuda.device_count()} GPUs that PyTorch can use",
            allowed=f"a GPU of compute capability {CAPABILITY[0]}.{CAPABILITY[1]} or higher",
            fix='run on such a machine, or pass device="cpu" for the same model with dense kernels',
        )
    return device


def _hardware(device: torch.device) -> str:
    if device.type == "cpu":
        return "on the CPU: sparse kernels need a GPU"
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < CAPABILITY:
        return f"compute capability {major}.{minor}: sparse kernels need {CAPABILITY[0]}.{CAPABILITY[1]} or higher"
    return ""


def _pruned(path: Path) -> list[dict[str, Any]]:
    try:
        with safe_open(path, "pt") as stored:
            layers: list[dict[str, Any]] = json.loads(stored.metadata()["pruned"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise SourceError(
            "the folder does not hold a model in the torch format",
            seen=f"{path}: {cause(error)}",
            allowed="what the torch format writes: safetensors with a list of the pruned layers",
            fix="write it with snowsdeploy export RUN --format torch",
        ) from error
    return layers


def _replace(model: nn.Module, name: str, weight: Tensor) -> None:
    """The program's graph reads its weights from the module by name, so a new parameter is what its layers get."""
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, nn.Parameter(weight, requires_grad=False))
