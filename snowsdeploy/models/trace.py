"""Any module or exported program -> Program."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from snowsdeploy.errors import GraphError, NumericsError
from snowsdeploy.models.caches import attributes_kept, forget_runs
from snowsdeploy.models.program import Program
from snowsdeploy.models.quiet import silent_loggers
from snowsdeploy.values import Preprocessing, SourceInfo

_LOGGERS = ("torch.fx.experimental.symbolic_shapes", "torch.export._trace", "torch.export")
_CAUSES = ("Not all values of", "You marked")  # torch.export's line that says why a size cannot vary
_ROUNDING = 1e-2  # far above what another order of sums makes, far below what other images make
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
    _require_free_names(module)
    module = module.eval().requires_grad_(False)
    images = torch.randn(2 * TRACE_BATCH, *preprocessing.input_size, generator=torch.Generator().manual_seed(0))
    with _clear_message(preprocessing.input_size), _quiet():
        try:
            exported = _exported(module, images[:TRACE_BATCH])
        except Exception:  # as _clear_message says
            if not forget_runs(module, images):
                raise
            exported = _exported(module, images[:TRACE_BATCH])
    return adopt(exported, preprocessing, source)


def _exported(module: nn.Module, example: Tensor) -> ExportedProgram:
    batch = {0: Dim("batch", min=1)}
    shapes = ((batch,),) if _takes_any_number(module) else (batch,)
    with attributes_kept(module):  # torch.export leaves tensors without values in caches
        return torch.export.export(module, (example,), dynamic_shapes=shapes, strict=False)


def _takes_any_number(module: nn.Module) -> bool:
    """Whether the first input of `forward` is `*args`, which torch.export describes as a tuple."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    return bool(parameters) and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL


def adopt(exported: ExportedProgram, preprocessing: Preprocessing, source: SourceInfo) -> Program:
    """Take a program that is already exported, for example from a `.pt2` file.

    Raises:
        GraphError: It has more than one input or a static batch dimension, changes its buffers or its input, or does
            not run.
        NumericsError: The outputs of a random batch are not finite.
    """
    with _adopted("decompose it"), _quiet():
        exported = exported.run_decompositions({})  # functional, with convolutions and linears kept whole
    inputs = exported.graph_signature.user_inputs
    if len(inputs) != 1:
        raise GraphError(
            "the model must take one image tensor", seen=f"{len(inputs)} inputs", fix="wrap it in a module"
        )
    _require_dynamic_batch(exported)
    _require_pure(exported)
    outputs = _checked_outputs(Program(exported, preprocessing, source, classes=0))
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


def _checked_outputs(program: Program) -> tuple[Tensor, ...]:
    """Outputs for three random images, of a model that is a function of each image alone."""
    size = "x".join(map(str, program.preprocessing.input_size))
    images = torch.randn(3, *program.preprocessing.input_size, generator=torch.Generator().manual_seed(1))
    with _adopted(f"run it on {len(images)} images of {size}"):
        outputs, again = program.run(images), program.run(images)
    with _adopted(f"run it on 1 image of {size}"):
        alone = program.run(images[:1])
    index = _first_difference(outputs, again)
    if index is not None:
        raise GraphError(
            "the model gives another output when it runs again",
            seen=_random_place(program.exported) or f"output {index}",
            fix="take what is random out of forward: dropout needs training=self.training",
        )
    none = torch.empty(0)  # for outputs that are of the whole batch and say nothing of one image
    first = tuple(output[:1] if output.dim() and len(output) == len(images) else none for output in outputs)
    index = _first_difference(first, alone)
    if index is not None:
        raise GraphError(
            "the model's output for an image depends on the other images of its batch",
            seen=f"output {index}",
            fix="take out what is computed over the batch, such as a normalisation in training mode",
        )
    return outputs


def _first_difference(expected: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> int | None:
    """The first output that differs by more than rounding; those of another shape say nothing."""
    for index, (a, b) in enumerate(zip(expected, found, strict=False)):
        if a.shape != b.shape or not a.is_floating_point() or not torch.isfinite(a).all():
            continue
        if float((a.double() - b.double()).norm()) > _ROUNDING * float(a.double().norm()):
            return index
    return None


def _random_place(exported: ExportedProgram) -> str:
    """The first operator that draws random numbers, with the line of the model that calls it."""
    for node in exported.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
            own = [f"{file}:{line}" for file, line in frames if "/torch/" not in file]
            return f"{node.target}{f' at {own[-1]}' if own else ''}"
    return ""


def _require_pure(exported: ExportedProgram) -> None:
    """Refuse a model whose second run differs from its first."""
    signature = exported.graph_signature
    changed = [f"the buffer {name}" for name in signature.buffers_to_mutate.values()]
    changed += [f"its input {name}" for name in signature.user_inputs_to_mutate.values()]
    if changed:
        raise GraphError(
            "the model changes what it is given when it runs",
            seen=", ".join(changed),
            allowed="a model whose outputs depend on its input alone",
            fix="write x = x + 1 for x += 1, and keep counters out of forward",
        )


@contextmanager
def _adopted(what: str) -> Iterator[None]:
    """Torch raises many types where an exported program does not hold what it says."""
    try:
        yield
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise GraphError(
            f"the exported model cannot be used: PyTorch could not {what}",
            seen=f"{type(error).__name__}: {(lines or [''])[0][:300]}",
            allowed="a model for one float image tensor [batch, C, H, W] and any batch size",
            fix="check --input-size, and that nothing in forward reads the batch size as a number",
        ) from error


def _require_free_names(module: nn.Module) -> None:
    """Names that a graph module has itself cannot be those of submodules."""
    taken = [name for name, _ in module.named_children() if hasattr(fx.GraphModule, name)]
    if taken:
        raise GraphError(
            "a submodule has a name that torch.export needs itself",
            seen=", ".join(taken),
            fix="rename it in the model, and in the names of its checkpoint",
        )


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
        lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        first = next((line.partition(". ")[0] for line in lines if line.startswith(_CAUSES)), lines[0])
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
    with silent_loggers(*_LOGGERS), warnings.catch_warnings(), redirect_stderr(StringIO()):  # it prints graphs too
        warnings.simplefilter("ignore")
        yield
