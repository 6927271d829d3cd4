"""A module -> Program, by torch.export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.export import Dim
from torch.fx.traceback import preserve_node_meta
from torch.utils._pytree import tree_leaves

from snowsdeploy.batch import Batch
from snowsdeploy.errors import GraphError, SourceError
from snowsdeploy.models.adopt import Wanted, adopt, image_input
from snowsdeploy.models.branches import join_branches
from snowsdeploy.models.caches import forget_runs
from snowsdeploy.models.graph import last_line
from snowsdeploy.models.onnx.file import OnnxFile
from snowsdeploy.models.program import Program
from snowsdeploy.models.purity import sizes_text
from snowsdeploy.models.quiet import quiet_tracing
from snowsdeploy.models.signature import call_of, parameters_of, random_batch
from snowsdeploy.models.sizes import traced_axes
from snowsdeploy.models.torch_export import FIXED_SIZE, HELD, export_module, held, names_taken
from snowsdeploy.user_code import UserCodeError, contained, line_of_user_code
from snowsdeploy.values import InputInfo, Preprocessing, SourceInfo

TRACE_BATCH = 2  # torch.export treats sizes 0 and 1 as constants


def trace(
    module: nn.Module,
    preprocessing: Preprocessing | None,
    source: SourceInfo,
    wanted: Wanted | None = None,
    file: OnnxFile | None = None,
) -> Program:
    """Trace a module in evaluation mode into one ATen graph.

    Args:
        module: Takes batches of the inputs.
        preprocessing: `input_size` is the traced size of the image; None where inputs are taken as they are.
        source: Recorded in the program.
        wanted: What the user says of inputs and outputs.
        file: Where its weights came from, if that was an ONNX file.

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

    with _clear_message(module, inputs), quiet_tracing(), nullcontext() if file is None else preserve_node_meta():
        exported = export_module(module, call, forget)
    return adopt(exported, preprocessing, source, replace(wanted, inputs=inputs), file)


def _run(module: nn.Module, batch: Batch, axes: Mapping[str, Mapping[int, Any]]) -> object:
    call = call_of(module, batch, axes)
    return module(*call.args, **call.kwargs)


def _tensors(outputs: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


@contextmanager
def _clear_message(module: nn.Module, inputs: Sequence[InputInfo]) -> Iterator[None]:
    try:
        with contained("the model"):
            yield
    except UserCodeError as found:
        error = found.__cause__
        if not isinstance(error, Exception):
            raise SourceError(found.what, seen=found.seen, allowed=found.allowed, fix=found.fix) from error
        # torch.export raises many types, most of them private
        lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        first = next((line.partition(". ")[0] for line in lines if line.startswith(FIXED_SIZE)), lines[0])
        where = last_line(str(error)) or line_of_user_code(error)
        fixed = "or fix the batch with --static-batch N, " if "batch" in first else ""
        raise GraphError(
            f"torch.export cannot trace the model with inputs of {sizes_text(inputs)}",
            seen=first[:300] + (f" (at {where})" if where else ""),
            allowed="a model without data-dependent Python control flow, for any batch size",
            fix=f"check --input-size and --arch; rewrite the operation named above, {fixed}or pass a .pt2 exported by "
            f"yourself{_other_hint(module, inputs, str(error))}",
        ) from error


def _other_hint(module: nn.Module, inputs: Sequence[InputInfo], text: str) -> str:
    """What else it may be: an input that was not given, or a wrapper around the model."""
    known, parts = parameters_of(module), list(module.named_children())
    if known.required > len(inputs) or ("NoneType" in text and len(known.names) > len(inputs)):
        return f"; its forward takes {', '.join(known.names[:6])}: name each with --input NAME=SHAPE"
    if len(parts) == 1 and not isinstance(module, nn.Sequential):
        return f"; it may be a wrapper: pass its part {parts[0][0]}, {type(parts[0][1]).__name__}, alone"
    return ""
