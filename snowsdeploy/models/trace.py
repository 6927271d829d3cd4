"""Any module or exported program -> Program."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves

from snowsdeploy.batch import Batch
from snowsdeploy.errors import GraphError, NumericsError, UsageError
from snowsdeploy.models.branches import join_branches
from snowsdeploy.models.caches import forget_runs
from snowsdeploy.models.fold import fold_weights
from snowsdeploy.models.graph import last_line, line_of
from snowsdeploy.models.outputs import with_outputs
from snowsdeploy.models.program import Program
from snowsdeploy.models.quiet import silent_loggers
from snowsdeploy.models.signature import (
    ONE_INPUT,
    call_of,
    chosen_outputs,
    input_names,
    output_names,
    parameters_of,
    random_batch,
    renamed_outputs,
)
from snowsdeploy.models.sizes import at_one_size, found_axes, other_sizes, traced_axes
from snowsdeploy.models.torch_export import FIXED_SIZE, HELD, decomposed, export_module, held, names_taken
from snowsdeploy.values import DynamicAxis, InputInfo, ModelSignature, Preprocessing, SourceInfo

_LOGGERS = ("torch.fx.experimental.symbolic_shapes", "torch.export._trace", "torch.export", "torch._dynamo")
_ROUNDING = 1e-2  # far above what another order of sums makes, far below what other images make
TRACE_BATCH = 2  # torch.export treats sizes 0 and 1 as constants
CHECKED_WITH = 3  # items


@dataclass(frozen=True)
class Wanted:
    """What the user says of inputs and outputs.

    Attributes:
        inputs: Names, shapes and types; None for one image of the preprocessing's size.
        example: Three items or more to trace and check with; random ones without.
        output_names: In place of the model's own.
        outputs: Names of those to keep; empty for all.
        batch: The only number of items that it takes at once; None for any.
        dynamic: Axes that may vary beside the batch.
    """

    inputs: tuple[InputInfo, ...] | None = None
    example: Batch | None = None
    output_names: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    batch: int | None = None
    dynamic: tuple[DynamicAxis, ...] = ()


def trace(
    module: nn.Module, preprocessing: Preprocessing | None, source: SourceInfo, wanted: Wanted | None = None
) -> Program:
    """Trace a module in evaluation mode into one ATen graph.

    Args:
        module: Takes batches of the inputs.
        preprocessing: `input_size` is the traced size of the image; None where inputs are taken as they are.
        source: Recorded in the program.
        wanted: What the user says of inputs and outputs.

    Raises:
        GraphError: `torch.export` refuses the model, or the batch dimension cannot be dynamic.
        NumericsError: The outputs of a random batch are not finite.
        UsageError: Names of inputs or outputs are not the model's.
    """
    module = module.eval().requires_grad_(False)
    if taken := names_taken(module):
        module, remarks = held(module), (f"names of weights begin with {HELD}.: torch.export needs {taken} itself",)
        source = source.model_copy(update={"remarks": (*source.remarks, *remarks)})
    wanted = wanted or Wanted()
    inputs = wanted.inputs or image_input(preprocessing)
    count = wanted.batch or TRACE_BATCH
    given = random_batch(inputs, count, 0) if wanted.example is None else wanted.example
    axes = {} if wanted.batch else {0: Dim("batch", min=1)}
    varying = {i.name: axes | traced_axes(wanted.dynamic, i.name) for i in inputs}
    module, remark = join_branches(module, lambda each: _tensors(_run(each, random_batch(inputs, count, 1), varying)))
    if remark:
        source = source.model_copy(update={"remarks": (*source.remarks, remark)})
    call = call_of(module, given[:count], varying)

    def forget() -> bool:
        return forget_runs(module, lambda batch: _run(module, batch, varying), random_batch(inputs, 4, 0))

    with _clear_message(inputs, parameters_of(module).names), _quiet():
        exported = export_module(module, call, forget)
    return adopt(exported, preprocessing, source, replace(wanted, inputs=inputs))


def _run(module: nn.Module, batch: Batch, axes: Mapping[str, Mapping[int, Any]]) -> object:
    call = call_of(module, batch, axes)
    return module(*call.args, **call.kwargs)


def _tensors(outputs: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def image_input(preprocessing: Preprocessing | None) -> tuple[InputInfo, ...]:
    """The one image that a preprocessing makes."""
    if preprocessing is None:
        raise UsageError(
            "nothing says what the model takes",
            seen="no size",
            fix="add --input-size C,H,W, or --input NAME=SHAPE for each input",
        )
    dtype = str(torch.get_default_dtype()).removeprefix("torch.")
    return (InputInfo(name=ONE_INPUT, shape=preprocessing.input_size, dtype=dtype),)


def adopt(
    exported: ExportedProgram,
    preprocessing: Preprocessing | None,
    source: SourceInfo,
    wanted: Wanted | None = None,
) -> Program:
    """Take a program that is already exported, for example from a `.pt2` file.

    Raises:
        GraphError: A batch dimension is static, it changes its buffers or its inputs, or does not run.
        NumericsError: The outputs of a random batch are not finite.
        UsageError: Names of inputs or outputs are not the program's.
    """
    wanted = wanted or Wanted()
    with _adopted("decompose it"), _quiet():
        exported = decomposed(exported)
        exported = fold_weights(exported)
    _require_pure(exported)
    names = output_names(exported)
    if wanted.output_names:
        names = renamed_outputs(names, wanted.output_names)
    if wanted.outputs:
        places = chosen_outputs(names, wanted.outputs)
        exported, names = with_outputs(exported, places), [names[place] for place in places]
    given = wanted.inputs or (image_input(preprocessing) if preprocessing and _takes_an_image(exported) else None)
    inputs, batch = _described(exported, given), _fixed_batch(exported)
    if batch is None:
        _require_batch_kept(exported)
    dynamic, varying = found_axes(exported, inputs, wanted.dynamic), None
    if dynamic:
        varying = exported
        with _adopted(f"fix its sizes at {_sizes(inputs)}"), _quiet():
            exported = at_one_size(varying, inputs, batch).run_decompositions({})
    signature = ModelSignature(inputs=inputs, outputs=tuple(names), batch=batch, dynamic=dynamic)
    unchecked = Program(exported, preprocessing, source, signature, 0, varying)
    outputs = _checked_outputs(unchecked, wanted.example)
    other_sizes(unchecked)  # says where the model does not run
    if not outputs:
        raise GraphError("the model gives no tensor", seen="no output", fix="return what is to be deployed")
    for name, output in zip(names, outputs, strict=True):
        if output.is_complex():
            raise GraphError(
                "an output is complex, and ONNX has no complex numbers",
                seen=name,
                fix="return torch.view_as_real(x), or leave it out with --outputs",
            )
        if not torch.isfinite(output).all():
            raise NumericsError(
                f"output {name} of the dense model holds NaN or Inf on random images",
                fix="check the checkpoint: a diverged training run, or weights of another architecture",
            )
    classes = outputs[0].shape[-1] if outputs[0].dim() > 1 else 0
    return replace(unchecked, classes=classes)


def _takes_an_image(exported: ExportedProgram) -> bool:
    """Whether its only input has the axes of one."""
    placeholders = {n.name: n.meta["val"] for n in exported.graph.nodes if n.op == "placeholder"}
    tensors = [placeholders[n] for n in exported.graph_signature.user_inputs if isinstance(n, str)]
    return len(tensors) == 1 and tensors[0].dim() == 4


def _described(exported: ExportedProgram, given: Sequence[InputInfo] | None) -> tuple[InputInfo, ...]:
    """The program's own inputs, under the names that the user gave."""
    placeholders = {n.name: n.meta["val"] for n in exported.graph.nodes if n.op == "placeholder"}
    tensors = [placeholders[n] for n in exported.graph_signature.user_inputs if isinstance(n, str)]
    own = input_names(exported) if len(tensors) > 1 else [ONE_INPUT]
    if given is not None and len(given) != len(tensors):
        raise UsageError(
            "the inputs are not those of the program",
            seen=", ".join(map(str, given)),
            allowed=f"{len(tensors)}: {', '.join(own)}",
        )
    if given is not None:
        by_name = {info.name for info in given} == set(own)
        own = own if by_name else [info.name for info in given]
    sizes = {info.name: info.shape for info in given or ()}
    return tuple(
        InputInfo(
            name=name,
            shape=_sized(value, sizes.get(name)),
            dtype=str(value.dtype).removeprefix("torch."),
        )
        for name, value in zip(own, tensors, strict=True)
    )


def _sized(value: Tensor, given: Sequence[int] | None) -> tuple[int, ...]:
    """Of one item; an axis that varies has the size that is given, else one."""
    shape = tuple(value.shape[1:])
    if given is None or len(given) != len(shape):
        return tuple(size if isinstance(size, int) else 1 for size in shape)
    return tuple(size if isinstance(size, int) else wanted for size, wanted in zip(shape, given, strict=True))


def _checked_outputs(program: Program, example: Batch | None) -> tuple[Tensor, ...]:
    """Outputs for three items, of a model that is a function of each item alone."""
    size, fixed = _sizes(program.inputs), program.signature.batch
    count = fixed or CHECKED_WITH
    batch = random_batch(program.inputs, count, 1) if example is None else example[:count]
    with _adopted(f"run it on {len(batch)} items of {size}"):
        outputs, again = program.run(batch), program.run(batch)
    index = _first_difference(outputs, again)
    if index is not None:
        raise GraphError(
            "the model gives another output when it runs again",
            seen=_random_place(program.exported) or _which(program, index),
            fix="take what is random out of forward: dropout needs training=self.training",
        )
    if fixed is not None:
        return outputs
    with _adopted(f"run it on 1 item of {size}"):
        alone = program.run(batch[:1])
    none = torch.empty(0)  # for outputs that are of the whole batch and say nothing of one image
    first = tuple(output[:1] if output.dim() and len(output) == len(batch) else none for output in outputs)
    index = _first_difference(first, alone)
    if index is not None:
        raise GraphError(
            "the model's output for an image depends on the other images of its batch",
            seen=_which(program, index),
            fix="take out what is computed over the batch, such as a normalisation in training mode; if it is meant, "
            "--static-batch N",
        )
    return outputs


def _which(program: Program, index: int) -> str:
    """An output, as a reader knows it."""
    names = program.signature.outputs
    return f"output {names[index]}" if len(names) > 1 else "its output"


def _sizes(inputs: Sequence[InputInfo]) -> str:
    """`3x224x224`, or the inputs by their names."""
    if len(inputs) == 1 and inputs[0].name == ONE_INPUT:
        return "x".join(map(str, inputs[0].shape)) or "one number"
    return ", ".join(map(str, inputs))


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
            return " at ".join(filter(None, (str(node.target), line_of(node))))
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


def _require_batch_kept(exported: ExportedProgram) -> None:
    """Refuse a `squeeze()` without an axis: of a single item it takes the batch away."""
    for node in exported.graph.nodes:
        if node.target is torch.ops.aten.squeeze.default and not isinstance(node.args[0].meta["val"].shape[0], int):
            raise GraphError(
                "the model loses the batch axis of a single item",
                seen=" at ".join(filter(None, ("squeeze() without an axis", line_of(node)))),
                fix="name the axis: x.squeeze(1)",
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
            allowed="a model for any batch size",
            fix="check --input-size or --input, and that nothing in forward reads the batch size as a number",
        ) from error


def _fixed_batch(exported: ExportedProgram) -> int | None:
    """The first axis of every input where it cannot vary.

    Raises:
        GraphError: Of some inputs it can, or it differs between them.
    """
    placeholders = {n.name: n for n in exported.graph.nodes if n.op == "placeholder"}
    names = [name for name in exported.graph_signature.user_inputs if isinstance(name, str)]
    values = [placeholders[name].meta["val"] for name in names]
    firsts = [value.shape[0] if isinstance(value, Tensor) and value.dim() else 0 for value in values]
    fixed = {first for first in firsts if isinstance(first, int)}
    if not fixed:
        return None
    if len(fixed) > 1 or 0 in fixed or len([f for f in firsts if isinstance(f, int)]) < len(firsts):
        raise GraphError(
            "the inputs of the exported program do not all have the batch as their first axis",
            seen=", ".join(f"{name} {tuple(value.shape)}" for name, value in zip(names, values, strict=True)),
            allowed="the same first axis of every input, fixed or dynamic",
            fix='export it with dynamic_shapes=({0: torch.export.Dim("batch")},)',
        )
    return fixed.pop()


@contextmanager
def _clear_message(inputs: Sequence[InputInfo], parameters: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch.export raises many types, most of them private
        lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        first = next((line.partition(". ")[0] for line in lines if line.startswith(FIXED_SIZE)), lines[0])
        where = _user_frame(error)
        more = f"; its forward takes {', '.join(parameters[:6])}: name each with --input NAME=SHAPE"
        fixed = "or fix the batch with --static-batch N, " if "batch" in first else ""
        raise GraphError(
            f"torch.export cannot trace the model with inputs of {_sizes(inputs)}",
            seen=first[:300] + (f" (at {where})" if where else ""),
            allowed="a model without data-dependent Python control flow, for any batch size",
            fix=f"check --input-size and --arch; rewrite the operation named above, {fixed}or pass a .pt2 exported by "
            f"yourself{more if len(parameters) > len(inputs) else ''}",
        ) from error


def _user_frame(error: BaseException) -> str:
    """The last frame outside torch: the line of the user's model that could not be traced."""
    where, frame = "", error.__traceback__
    while frame is not None:
        filename = frame.tb_frame.f_code.co_filename
        if "/torch/" not in filename and not filename.startswith("<") and "snowsdeploy" not in filename:
            where = f"{filename}:{frame.tb_lineno}"
        frame = frame.tb_next
    return last_line(str(error)) or where


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns about its own internals; nothing in it is for the user of this tool."""
    with silent_loggers(*_LOGGERS), warnings.catch_warnings(), redirect_stderr(StringIO()):  # it prints graphs too
        warnings.simplefilter("ignore")
        yield
