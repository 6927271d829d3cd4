"""Any module or exported program -> Program."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from snowsdeploy.errors import GraphError, NumericsError
from snowsdeploy.models.program import Program
from snowsdeploy.values import Preprocessing, SourceInfo

TRACE_BATCH = 2  # torch.export treats sizes 0 and 1 as constants


def trace(module: nn.Module, preprocessing: Preprocessing, source: SourceInfo) -> Program:
    """Trace a module in evaluation mode into one ATen graph.

    Args:
        module: Takes one image batch `[batch, C, H, W]`.
        preprocessing: `input_size` is the traced size.
        source: Recorded in the program.

    Raises:
        GraphError: `torch.export` refuses the model, or the batch dimension cannot be dynamic.
        NumericsError: The outputs of a random batch are not finite.
    """
    module = module.eval().requires_grad_(False)
    example = torch.randn(TRACE_BATCH, *preprocessing.input_size, generator=torch.Generator().manual_seed(0))
    with _clear_message(preprocessing.input_size), _quiet():
        batch = {0: Dim("batch", min=1)}
        shapes = ((batch,),) if _takes_any_number(module) else (batch,)
        exported = torch.export.export(module, (example,), dynamic_shapes=shapes, strict=False)
    return adopt(exported, preprocessing, source)


def _takes_any_number(module: nn.Module) -> bool:
    """Whether the first input of `forward` is `*args`, which torch.export describes as a tuple."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    return bool(parameters) and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL


def adopt(exported: ExportedProgram, preprocessing: Preprocessing, source: SourceInfo) -> Program:
    """Take a program that is already exported, for example from a `.pt2` file.

    Raises:
        GraphError: It has more than one input, or a static batch dimension.
        NumericsError: The outputs of a random batch are not finite.
    """
    with _quiet():
        exported = exported.run_decompositions({})  # functional, with convolutions and linears kept whole
    inputs = exported.graph_signature.user_inputs
    if len(inputs) != 1:
        raise GraphError(
            "the model must take one image tensor", seen=f"{len(inputs)} inputs", fix="wrap it in a module"
        )
    _require_dynamic_batch(exported)
    images = torch.randn(3, *preprocessing.input_size, generator=torch.Generator().manual_seed(1))
    outputs = Program(exported, preprocessing, source, classes=0).run(images)
    if not outputs or outputs[0].dim() < 2:
        raise GraphError(
            "the model's first output must be [batch, ..., classes]", seen=[tuple(o.shape) for o in outputs]
        )
    for index, output in enumerate(outputs):
        if not torch.isfinite(output).all():
            raise NumericsError(
                f"output {index} of the dense model holds NaN or Inf on random images",
                fix="check the checkpoint: a diverged training run, or weights of another architecture",
            )
    return Program(exported, preprocessing, source, classes=outputs[0].shape[-1])


def _require_dynamic_batch(exported: ExportedProgram) -> None:
    name = exported.graph_signature.user_inputs[0]
    node = next(n for n in exported.graph.nodes if n.op == "placeholder" and n.name == name)
    value = node.meta["val"]
    if not isinstance(value, Tensor) or isinstance(value.shape[0], int):
        raise GraphError(
            "the exported program has a fixed batch size",
            seen=tuple(value.shape) if isinstance(value, Tensor) else value,
            allowed="a dynamic first dimension",
            fix='export it with dynamic_shapes=({0: torch.export.Dim("batch")},)',
        )


@contextmanager
def _clear_message(input_size: tuple[int, ...]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch.export raises many types, most of them private
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        where = _user_frame(error)
        raise GraphError(
            f"torch.export cannot trace the model with images of {'x'.join(map(str, input_size))}",
            seen=first[:300] + (f" (at {where})" if where else ""),
            allowed="a model without data-dependent Python control flow, for any batch size",
            fix="check --input-size and --arch; rewrite the operation named above, or pass a .pt2 exported by yourself",
        ) from error


def _user_frame(error: BaseException) -> str:
    """The last frame outside torch: the line of the user's model that could not be traced."""
    where, frame = "", error.__traceback__
    while frame is not None:
        filename = frame.tb_frame.f_code.co_filename
        if "/torch/" not in filename and not filename.startswith("<") and "snowsdeploy" not in filename:
            where = f"{filename}:{frame.tb_lineno}"
        frame = frame.tb_next
    return where


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns about its own internals; nothing in it is for the user of this tool."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
