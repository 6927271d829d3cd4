"""A program in another precision -> the same in FP32, where all work is done; in FP64 for what rounding alone does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from snowsdeploy.batch import Batch, Inputs, tensors_of
from snowsdeploy.models.program import Program, copied

OTHERS = (torch.float16, torch.bfloat16, torch.float64)


def in_fp32(exported: ExportedProgram) -> tuple[ExportedProgram, str]:
    """Weights, inputs, constants and casts in FP32; the given program is unchanged.

    Returns:
        The program, itself where all of it is in FP32; and a sentence for the user, empty where nothing changed.
    """
    found = {t.dtype for t in exported.state_dict.values() if t.dtype in OTHERS}
    if not found:
        return exported, ""
    made = _cast(exported, OTHERS, torch.float32)
    names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
    words = f"cast from {names} to float32; --precision chooses that of the ONNX files"
    return made, words


def in_fp64(exported: ExportedProgram) -> ExportedProgram:
    """A program of FP32 in FP64: what it computes there has no rounding to speak of."""
    return _cast(exported, (torch.float32,), torch.float64)


def run_in_fp64(program: Program, batch: Batch) -> tuple[Tensor, ...]:
    """What a program of FP32 would give without rounding.

    Raises:
        RuntimeError: An operator has no form in FP64.
    """
    wide = replace(program, exported=in_fp64(program.exported_for(batch)), varying=None)
    tensors = {str(at): t.double() if t.dtype == torch.float32 else t for at, t in enumerate(tensors_of(batch))}
    return wide.run(Inputs(tensors) if len(tensors) > 1 else tensors["0"])


def _cast(exported: ExportedProgram, sources: Collection[torch.dtype], target: torch.dtype) -> ExportedProgram:
    """A copy whose weights, inputs, constants and casts are of another type."""

    def changed(argument: Any) -> Any:  # noqa: ANN401 - what a node may have
        return target if isinstance(argument, torch.dtype) and argument in sources else argument

    made = copied(exported)
    for tensors in (made.state_dict, made.constants):
        for name, value in list(tensors.items()):
            if isinstance(value, Tensor) and value.dtype in sources:
                cast = value.detach().to(target)
                tensors[name] = nn.Parameter(cast, requires_grad=False) if isinstance(value, nn.Parameter) else cast
    for node in made.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, Tensor) and value.dtype in sources:
            node.meta["val"] = value.to(target)
        node.args, node.kwargs = pytree.tree_map(changed, node.args), pytree.tree_map(changed, node.kwargs)
    made.graph_module.recompile()
    inferred: ExportedProgram = made.run_decompositions({})  # with their types
    return inferred
