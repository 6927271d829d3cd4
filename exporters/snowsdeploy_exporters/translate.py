"""Program -> ONNX by `torch.onnx`'s graph-based exporter, with what it stumbles over named by operator and line."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence

import onnx_ir as ir
import torch
from torch.export import ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel

from snowsdeploy.errors import ExportError
from snowsdeploy.models.graph import line_of
from snowsdeploy.models.program import Program
from snowsdeploy.models.quiet import silent_loggers

OLDEST_OPSET = 18  # what the exporter writes; it cannot go back reliably
_NODE = re.compile(r"translating node %(\w+)")
_OPERATOR = re.compile(r"torch\.ops\.([\w.]+)|\b((?:aten|prims)[.:]+[\w.]+)")


def translate(program: Program, opset: int) -> tuple[ir.Model, ExportedProgram]:
    """Translate the program that files are made of.

    Args:
        program: The program.
        opset: ONNX operator set.

    Returns:
        The model, and the program that torch.onnx translated in the end: its nodes are those of the model's records.

    Raises:
        ExportError: torch.onnx lacks an operator, cannot write this operator set, or fixes an axis that varies.
    """
    converted, translated = _translated(program.shipped, [info.name for info in program.inputs], opset)
    _require_free_axes(program, translated)
    written = converted.model.opset_imports.get("")
    if written != opset:  # the exporter only logs that it could not convert
        raise ExportError(
            "torch.onnx cannot write the model in this operator set",
            seen=f"--opset {opset}",
            allowed=f"{OLDEST_OPSET} or later; this model came out as {written}",
            fix=f"use --opset {written}",
        )
    return converted.model, translated


def _translated(
    exported: ExportedProgram, inputs: Sequence[str], opset: int
) -> tuple[torch.onnx.ONNXProgram, ExportedProgram]:
    """What torch.onnx makes of a program; an operator that it lacks is tried again as simpler ones."""
    simplified: set[object] = set()
    while True:
        try:
            with quiet_export():
                converted = torch.onnx.export(
                    exported,
                    dynamo=True,
                    verbose=False,
                    opset_version=opset,
                    input_names=inputs,
                    optimize=True,
                )
        except Exception as error:  # the exporter raises many types, most of them private
            if "unbacked symbol" in _said(error) and "fresh" not in simplified:
                simplified.add("fresh")
                exported = _reloaded(exported)
                continue
            node = _culprit(error, exported.graph)
            table = torch.export.default_decompositions()
            if node is None or node.target in simplified or node.target not in table:
                raise ExportError(
                    "torch.onnx cannot convert the program",
                    seen=_cause(error, node, exported.graph),
                    allowed=f"operations that torch.onnx can write in opset {opset}",
                    fix="replace that operation in the model, or try another --opset",
                ) from error
            simplified.add(node.target)
            with quiet_export(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no simpler operators
                exported = exported.run_decompositions({node.target: table[node.target]})
        else:
            assert converted is not None
            return converted, exported


def _require_free_axes(program: Program, translated: ExportedProgram) -> None:
    """Refuse a file whose axes are fixed by the translation, as that of a convolution whose groups are the batch."""
    user = [
        n for n in translated.graph.nodes if n.op == "placeholder" and n.name in translated.graph_signature.user_inputs
    ]
    for info, node in zip(program.inputs, user, strict=True):
        for axis, size in enumerate(node.meta["val"].shape):
            only = None if isinstance(size, int) else size.node.maybe_as_int()
            if only is not None:
                raise ExportError(
                    "torch.onnx fixes an axis of the input that should vary",
                    seen=f"axis {axis} of {info.name} at {only}",
                    allowed="an axis of any size",
                    fix="--static-batch N traces the model for one number of items"
                    if axis == 0
                    else "leave the axis out of --dynamic",
                )


def _culprit(error: Exception, graph: torch.fx.Graph) -> torch.fx.Node | None:
    """What the exporter stumbled over, where it says that."""
    named = _NODE.search(_said(error))
    return next((node for node in graph.nodes if named and node.name == named[1]), None)


def _reloaded(exported: ExportedProgram) -> ExportedProgram:
    """With a memory of sizes of its own: one translation leaves there what stops the next."""
    stream = io.BytesIO()
    with silent_loggers("torch.export", "torch._export.serde.serialize"):
        torch.export.save(exported, stream)
        stream.seek(0)
        return torch.export.load(stream)


def _said(error: Exception) -> str:
    return f"{error.__cause__ or ''}\n{error}"


def _cause(error: Exception, node: torch.fx.Node | None, graph: torch.fx.Graph) -> str:
    """The operator that the exporter stumbled over and the line that calls it, else the first line of what it said."""
    text = _said(error)
    if "unbacked symbol" in text:
        sized = next((n for n in graph.nodes if torch.Tag.dynamic_output_shape in getattr(n.target, "tags", ())), None)
        if sized is not None:
            return f"the size of what {sized.target} gives depends on values{_at(sized)}"
    operator = _OPERATOR.search(text)
    if operator:
        numbers = " on complex numbers, which ONNX lacks" if "complex-valued" in text else ""
        return f"{operator[1] or operator[2]}{numbers}{'' if node is None else _at(node)}"
    return next((line.strip()[:200] for line in text.splitlines() if line.strip()), type(error).__name__)


def _at(node: torch.fx.Node) -> str:
    line = line_of(node)
    return f" (at {line})" if line else ""


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """The exporter prints and warns about its own internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", None)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
