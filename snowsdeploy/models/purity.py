"""Is a program a function of each of its items alone? Random forwards, changed buffers and mixed batches are named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.export import ExportedProgram

from snowsdeploy.batch import Batch
from snowsdeploy.errors import GraphError
from snowsdeploy.models.graph import line_of
from snowsdeploy.models.program import Program
from snowsdeploy.models.signature import ONE_INPUT, random_batch
from snowsdeploy.values import InputInfo

_ROUNDING = 1e-2  # far above what another order of sums makes, far below what other images make
CHECKED_WITH = 3  # items


def checked_outputs(program: Program, example: Batch | None) -> tuple[Tensor, ...]:
    """Outputs for three items, of a model that is a function of each item alone."""
    size, fixed = sizes_text(program.inputs), program.signature.batch
    count = fixed or CHECKED_WITH
    batch = random_batch(program.inputs, count, 1) if example is None else example[:count]
    with clear_message(f"run it on {len(batch)} items of {size}"):
        outputs, again = program.run(batch), program.run(batch)
    index = _first_difference(outputs, again)
    if index is not None:
        raise GraphError(
            "the model gives another output when it runs again",
            seen=_random_place(program.exported) or _which(program, index),
            allowed="a model that gives the same output for the same input",
            fix="take what is random out of forward: dropout needs training=self.training",
        )
    if fixed is not None:
        return outputs
    with clear_message(f"run it on 1 item of {size}"):
        alone = program.run(batch[:1])
    none = torch.empty(0)  # for outputs that are of the whole batch and say nothing of one image
    first = tuple(output[:1] if output.dim() and len(output) == len(batch) else none for output in outputs)
    index = _first_difference(first, alone)
    if index is not None:
        raise GraphError(
            "the model's output for an image depends on the other images of its batch",
            seen=_which(program, index),
            allowed="outputs that depend on their own item alone",
            fix="take out what is computed over the batch, such as a normalisation in training mode; if it is meant, "
            "--static-batch N",
        )
    return outputs


def _which(program: Program, index: int) -> str:
    """An output, as a reader knows it."""
    names = program.signature.outputs
    return f"output {names[index]}" if len(names) > 1 else "its output"


def sizes_text(inputs: Sequence[InputInfo]) -> str:
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


def require_pure(exported: ExportedProgram) -> None:
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


def require_batch_kept(exported: ExportedProgram) -> None:
    """Refuse a `squeeze()` without an axis: of a single item it takes the batch away."""
    for node in exported.graph.nodes:
        if node.target is torch.ops.aten.squeeze.default and not isinstance(node.args[0].meta["val"].shape[0], int):
            raise GraphError(
                "the model loses the batch axis of a single item",
                seen=" at ".join(filter(None, ("squeeze() without an axis", line_of(node)))),
                allowed="operations that keep the first axis, also where it has one item",
                fix="name the axis: x.squeeze(1)",
            )


@contextmanager
def clear_message(what: str) -> Iterator[None]:
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
