"""An exported program -> Program: weights folded, inputs and outputs named, proven to be a function of its items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.export import ExportedProgram

from snowsdeploy.batch import Batch
from snowsdeploy.errors import GraphError, NumericsError, UsageError
from snowsdeploy.models.fold import fold_weights
from snowsdeploy.models.onnx.file import OnnxFile
from snowsdeploy.models.outputs import gives_plain, with_outputs
from snowsdeploy.models.program import Program
from snowsdeploy.models.purity import checked_outputs, clear_message, require_batch_kept, require_pure, sizes_text
from snowsdeploy.models.quiet import quiet_tracing
from snowsdeploy.models.signature import (
    ONE_INPUT,
    chosen_outputs,
    input_names,
    input_values,
    output_names,
    renamed_outputs,
)
from snowsdeploy.models.sizes import at_one_size, found_axes, other_sizes
from snowsdeploy.models.torch_export import decomposed
from snowsdeploy.values import DynamicAxis, InputInfo, ModelSignature, Preprocessing, SourceInfo


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


def image_input(preprocessing: Preprocessing | None) -> tuple[InputInfo, ...]:
    """The one image that a preprocessing makes."""
    if preprocessing is None:
        raise UsageError(
            "nothing says what the model takes",
            seen="no size",
            allowed="one image of a known size, or inputs by name",
            fix="add --input-size C,H,W, or --input NAME=SHAPE for each input",
        )
    dtype = str(torch.get_default_dtype()).removeprefix("torch.")
    return (InputInfo(name=ONE_INPUT, shape=preprocessing.input_size, dtype=dtype),)


def adopt(
    exported: ExportedProgram,
    preprocessing: Preprocessing | None,
    source: SourceInfo,
    wanted: Wanted | None = None,
    file: OnnxFile | None = None,
) -> Program:
    """Take a program that is already exported, for example from a `.pt2` file.

    Args:
        exported: The program.
        preprocessing: As in `Program`.
        source: As in `Program`.
        wanted: What the user says of inputs and outputs.
        file: Where its weights came from: then none of them is computed anew, since the file has to hold it.

    Raises:
        GraphError: A batch dimension is static, it changes its buffers or its inputs, or does not run.
        NumericsError: The outputs of a random batch are not finite.
        UsageError: Names of inputs or outputs are not the program's.
    """
    wanted = wanted or Wanted()
    with clear_message("decompose it"), quiet_tracing():
        exported = decomposed(exported)
        exported = exported if file is not None else fold_weights(exported)
    require_pure(exported)
    names = output_names(exported)
    if wanted.output_names:
        names = renamed_outputs(names, wanted.output_names)
    if wanted.outputs or not gives_plain(exported):
        places = chosen_outputs(names, wanted.outputs or names)
        exported, names = with_outputs(exported, places), [names[place] for place in places]
    given = wanted.inputs or (image_input(preprocessing) if preprocessing and _takes_an_image(exported) else None)
    inputs, batch = _described(exported, given), _fixed_batch(exported)
    if batch is None:
        require_batch_kept(exported)
    dynamic, varying = found_axes(exported, inputs, wanted.dynamic), None
    if dynamic:
        varying = exported
        with clear_message(f"fix its sizes at {sizes_text(inputs)}"), quiet_tracing():
            exported = at_one_size(varying, inputs, batch).run_decompositions({})
    signature = ModelSignature(inputs=inputs, outputs=tuple(names), batch=batch, dynamic=dynamic)
    unchecked = Program(exported, preprocessing, source, signature, 0, varying, file)
    outputs = checked_outputs(unchecked, wanted.example)
    other_sizes(unchecked)  # says where the model does not run
    if not outputs:
        raise GraphError(
            "the model gives no tensor",
            seen="no output",
            allowed="at least one tensor among what forward returns",
            fix="return what is to be deployed",
        )
    for name, output in zip(names, outputs, strict=True):
        if output.is_complex():
            raise GraphError(
                "an output is complex, and ONNX has no complex numbers",
                seen=f"output {name} is {str(output.dtype).removeprefix('torch.')}",
                allowed="real numbers, whole numbers and truth values",
                fix="return torch.view_as_real(x), or leave it out with --outputs",
            )
        if not torch.isfinite(output).all():
            raise NumericsError(
                f"output {name} of the dense model holds NaN or Inf on random images",
                seen=f"{int((~torch.isfinite(output)).sum())} of {output.numel()} values",
                allowed="finite numbers",
                fix="check the checkpoint: a diverged training run, or weights of another architecture",
            )
    classes = outputs[0].shape[-1] if outputs[0].dim() > 1 else 0
    return replace(unchecked, classes=classes)


def _takes_an_image(exported: ExportedProgram) -> bool:
    """Whether its only input has the axes of one."""
    tensors = input_values(exported)
    return len(tensors) == 1 and tensors[0].dim() == 4


def _described(exported: ExportedProgram, given: Sequence[InputInfo] | None) -> tuple[InputInfo, ...]:
    """The program's own inputs, under the names that the user gave."""
    tensors = input_values(exported)
    own = input_names(exported) if len(tensors) > 1 else [ONE_INPUT]
    if given is not None and len(given) != len(tensors):
        raise UsageError(
            "the inputs are not those of the program",
            seen=", ".join(map(str, given)),
            allowed=f"{len(tensors)}: {', '.join(own)}",
            fix="name each of them once with --input NAME=SHAPE",
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
