"""A program in half or double precision -> the same in FP32: sparsity is found there, files are written from there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from snowsdeploy.models.program import copied

OTHERS = (torch.float16, torch.bfloat16, torch.float64)


def in_fp32(exported: ExportedProgram) -> tuple[ExportedProgram, str]:
    """Weights, inputs, constants and casts in FP32; the given program is unchanged.

    Returns:
        The program, itself where all of it is in FP32; and a sentence for the user, empty where nothing changed.
    """
    found = {t.dtype for t in exported.state_dict.values() if t.dtype in OTHERS}
    if not found:
        return exported, ""
    made = copied(exported)
    for tensors in (made.state_dict, made.constants):
        for name, value in list(tensors.items()):
            if isinstance(value, Tensor) and value.dtype in OTHERS:
                wide = value.detach().float()
                tensors[name] = nn.Parameter(wide, requires_grad=False) if isinstance(value, nn.Parameter) else wide
    for node in made.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, Tensor) and value.dtype in OTHERS:
            node.meta["val"] = value.to(torch.float32)
        node.args, node.kwargs = pytree.tree_map(_wide, node.args), pytree.tree_map(_wide, node.kwargs)
    made.graph_module.recompile()
    names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
    words = f"cast from {names} to float32; --precision chooses that of the ONNX files"
    return made.run_decompositions({}), words  # types are inferred anew


def _wide(argument: Any) -> Any:  # noqa: ANN401 - what a node may have
    return torch.float32 if isinstance(argument, torch.dtype) and argument in OTHERS else argument
