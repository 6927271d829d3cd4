"""What a loader, a factory or a caller gave -> refused with its cause where it is no module that can be traced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, fx, nn

from snowsdeploy.errors import SourceError

_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")
REAL = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_USABLE = "a Python torch.nn.Module, or weights for one, of dense tensors of real numbers that have values"
_FLOAT = "prune the float model, and choose --precision int8"


def require_usable(module: nn.Module) -> None:
    """Refuse a module that cannot be put into evaluation mode, traced and pruned.

    Raises:
        SourceError: It is scripted, quantised or exported, or a tensor of it has no values, or not those of a matrix.
    """
    problem = next(_problems(module), None)
    if problem is not None:
        what, seen, fix = problem
        raise SourceError(what, seen=seen, allowed=_USABLE, fix=fix)


def require_usable_weights(tensors: Mapping[str, Tensor], module: nn.Module) -> None:
    """Refuse tensors of a file whose values cannot become a module's weights.

    Args:
        tensors: By the module's names.
        module: What they would be loaded into.

    Raises:
        SourceError: One is sparse, quantised, without values, or not of the real numbers that its parameter has.
    """
    parameters = dict(module.named_parameters())
    for name, tensor in tensors.items():
        for what, seen, fix in _tensor_problems(name, tensor):
            raise SourceError(what, seen=seen, allowed=_USABLE, fix=fix)
        if name in parameters and parameters[name].dtype in REAL and tensor.dtype not in REAL:
            raise SourceError(
                "a weight of the checkpoint is not stored as real numbers",
                seen=f"{name} is {type_name(tensor)}",
                allowed=", ".join(str(dtype).removeprefix("torch.") for dtype in REAL),
                fix="save the float model's state dict",
            )


def type_name(tensor: Tensor) -> str:
    """`float8_e4m3fn`, as PyTorch calls a tensor's type."""
    return str(tensor.dtype).removeprefix("torch.")


def _problems(module: nn.Module) -> Iterator[tuple[str, str, str]]:
    kind = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        yield "the model is a TorchScript module, which cannot be traced again", kind, "pass it before torch.jit.script"
    if isinstance(module, fx.GraphModule) and not _has_modes(module):
        fix = "pass the exported program itself, or a .pt2 file that torch.export.save wrote of it"
        yield "the model is the module of an exported program, which has lost its modes", kind, fix
    for name, child in module.named_modules():
        if type(child).__module__.startswith(_QUANTIZED):
            seen = f"{name or 'the model'} is a {type(child).__module__.rpartition('.')[0]}.{type(child).__name__}"
            yield "the model is quantised", seen, _FLOAT
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        yield from _tensor_problems(name, tensor)


def _has_modes(module: fx.GraphModule) -> bool:
    try:
        module.eval()
    except NotImplementedError:
        return False
    return True


def _tensor_problems(name: str, tensor: Tensor) -> Iterator[tuple[str, str, str]]:
    if isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer):
        yield "a lazy layer has no weights yet", name, "run the model once on a batch before it is given"
    elif tensor.is_meta:
        yield "a weight is on the meta device and has no values", name, "load a checkpoint into the model"
    elif tensor.is_quantized:
        yield "the model is quantised", f"{name} is {tensor.dtype}", _FLOAT
    elif tensor.layout != torch.strided:
        seen = f"{name} is {str(tensor.layout).removeprefix('torch.')}"
        yield "a weight is stored sparse", seen, "make it dense: tensor.to_dense()"
