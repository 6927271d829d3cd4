"""Program -> one ONNX file in FP32, and from that file the other precisions and the files for serving."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import file_digest
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from torch.export import ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel

from snowsdeploy.batch import Batch
from snowsdeploy.errors import ExportError, UsageError
from snowsdeploy.files import atomic_path
from snowsdeploy.layout.onnx_layout import LAYER_MAP_KEY, node_layers
from snowsdeploy.models.graph import line_of
from snowsdeploy.models.program import Program
from snowsdeploy.models.quiet import silent_loggers
from snowsdeploy.settings.export import ExportSettings
from snowsdeploy.values import OnnxArtifact, Precision, Preprocessing, Role
from snowsdeploy_exporters.layer_map import layer_map
from snowsdeploy_exporters.serving import add_ends
from snowsdeploy_exporters.tidy import name_axes, name_outputs, strip_traces

PROTOBUF_LIMIT = 2 * 2**30
OLDEST_OPSET = 18  # what the exporter writes; it cannot go back reliably
_NODE = re.compile(r"translating node %(\w+)")
_OPERATOR = re.compile(r"torch\.ops\.([\w.]+)|\b((?:aten|prims)[.:]+[\w.]+)")


@dataclass(frozen=True)
class OnnxExporter:
    """Exports by `torch.onnx`'s graph-based exporter.

    Attributes:
        opset: ONNX operator set.
        keep_fp32: Names of layers or nodes that a conversion leaves in FP32; `*` and `?` stand for more.
    """

    opset: int = 20
    keep_fp32: tuple[str, ...] = ()

    def export(self, program: Program, path: Path, role: Role, metadata: Mapping[str, str]) -> OnnxArtifact:
        """Write one file; inputs and outputs have the program's names, their first dimension is `batch`.

        Args:
            program: The program; its zeros stay zeros, batch normalisation is folded into convolutions.
            path: The file to write; atomic.
            role: Recorded in the artifact.
            metadata: Provenance and what the user adds, written to the model's metadata.

        Raises:
            ExportError: The exporter lacks an operator, the file would exceed 2 GiB, or the ONNX checker refuses it.
            UsageError: A name in `keep_fp32` is of no layer or node.
        """
        model, translated = self._convert(program)
        layers = layer_map(model, program, translated)
        name_axes(model, program.signature)
        name_outputs(model, _tensor_outputs(program), program.signature.outputs)
        strip_traces(model)
        model.producer_name, model.producer_version = "snowsdeploy", None  # torch's; ours is in the metadata
        model.metadata_props.update({k: metadata[k] for k in sorted(metadata)})
        model.metadata_props[LAYER_MAP_KEY] = json.dumps(layers, sort_keys=True)
        _require_size(model)
        proto = ir.to_proto(model)
        _matching_nodes(proto, self.keep_fp32)
        return OnnxArtifact(
            path=path,
            role=role,
            sha256=_write(proto, path),
            size_bytes=path.stat().st_size,
            opset=self.opset,
            input_names=tuple(i.name for i in proto.graph.input),
            output_names=tuple(o.name for o in proto.graph.output),
            metadata=dict(metadata),
        )

    def convert(self, source: OnnxArtifact, path: Path, precision: Precision, images: Sequence[Batch]) -> OnnxArtifact:
        """Write an FP32 file in another precision; inputs and outputs stay FP32.

        Args:
            source: What `export` wrote.
            path: The file to write; atomic.
            precision: Not fp32.
            images: Batches `[batch, C, H, W]` on which the ranges of activations are measured.

        Raises:
            ExportError: The model overflows in this precision, or the ONNX checker refuses the file.
            UsageError: A name in `keep_fp32` is of no layer or node.
        """
        from snowsdeploy_exporters.precision import CONVERTERS  # noqa: PLC0415 - loads ONNX Runtime's tools

        model = onnx.load(source.path)
        keep = _matching_nodes(model, self.keep_fp32)
        with _quiet():
            converted = CONVERTERS[precision](model, [batch.numpy() for batch in images], keep)
        update = {
            "path": path,
            "precision": precision,
            "kept": converted.kept,
            "sha256": _write(converted.model, path),
            "size_bytes": path.stat().st_size,
        }
        return source.model_copy(update=update)

    def serve(
        self,
        source: OnnxArtifact,
        path: Path,
        settings: ExportSettings,
        preprocessing: Preprocessing | None,
        images: Sequence[Batch],
    ) -> OnnxArtifact:
        """Write a file with the preprocessing and output ends that are asked for inside the graph.

        Args:
            source: What `export` or `convert` wrote.
            path: The file to write; atomic.
            settings: Which ends.
            preprocessing: How pixels become the model's input.
            images: Batches `[batch, C, H, W]` on which both files are compared.

        Raises:
            ExportError: The new file computes something else, or the ONNX checker refuses it.
        """
        from snowsdeploy_exporters.serving_check import require_equal  # noqa: PLC0415 - loads ONNX Runtime

        original = onnx.load(source.path)
        try:
            served = add_ends(
                original,
                preprocessing,
                uint8_input=settings.uint8_input,
                softmax=settings.softmax,
                top_k=settings.top_k,
            )
        except onnx.shape_inference.InferenceError as error:
            raise ExportError("shapes cannot be inferred in the serving file", seen=_first_line(error)) from error
        require_equal(original, served, preprocessing, [batch.numpy() for batch in images])
        update = {
            "path": path,
            "sha256": _write(served, path),
            "size_bytes": path.stat().st_size,
            "output_names": tuple(o.name for o in served.graph.output),
        }
        return source.model_copy(update=update)

    def _convert(self, program: Program) -> tuple[ir.Model, ExportedProgram]:
        """The model, and the program that torch.onnx translated in the end."""
        converted, translated = self._translated(program.shipped, [info.name for info in program.inputs])
        _require_free_axes(program, translated)
        written = converted.model.opset_imports.get("")
        if written != self.opset:  # the exporter only logs that it could not convert
            raise ExportError(
                "torch.onnx cannot write the model in this operator set",
                seen=f"--opset {self.opset}",
                allowed=f"{OLDEST_OPSET} or later; this model came out as {written}",
                fix=f"use --opset {written}",
            )
        return converted.model, translated

    def _translated(
        self, exported: ExportedProgram, inputs: Sequence[str]
    ) -> tuple[torch.onnx.ONNXProgram, ExportedProgram]:
        """What torch.onnx makes of a program; an operator that it lacks is tried again as simpler ones."""
        simplified: set[object] = set()
        while True:
            try:
                with _quiet():
                    converted = torch.onnx.export(
                        exported,
                        dynamo=True,
                        verbose=False,
                        opset_version=self.opset,
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
                        fix="replace that operation in the model, or try another --opset",
                    ) from error
                simplified.add(node.target)
                with _quiet(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no simpler operators
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
                    fix="--static-batch N traces the model for one number of items"
                    if axis == 0
                    else "leave the axis out of --dynamic",
                )


def _matching_nodes(model: onnx.ModelProto, names: Sequence[str]) -> set[str]:
    """Nodes whose name, or that of a layer whose weight they multiply by, is meant by one of the names."""
    layers = node_layers(model)
    found: set[str] = set()
    for name in names:
        nodes = {
            n.name for n in model.graph.node if any(fnmatchcase(x, name) for x in (n.name, *layers.get(n.name, ())))
        }
        if not nodes:
            shown = list(dict.fromkeys(layer for found_in in layers.values() for layer in found_in))
            raise UsageError(
                "--keep-fp32 names no layer or node of the file",
                seen=name,
                allowed=f"layers such as {', '.join(shown[:3])}, and names of nodes",
            )
        found |= nodes
    return found


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


def _tensor_outputs(program: Program) -> list[bool]:
    """For each output that the exporter writes (it drops None) whether it is a tensor."""
    output = next(n for n in program.shipped.graph.nodes if n.op == "output")
    returned = [o for o in output.args[0] if o is not None]
    return [isinstance(o, torch.fx.Node) and isinstance(o.meta.get("val"), torch.Tensor) for o in returned]


def _require_size(model: ir.Model) -> None:
    """Before the weights are copied into a message that could not be written."""
    tensors = (v.const_value for v in model.graph.initializers.values())
    size = sum(t.nbytes for t in tensors if t is not None)
    if size >= PROTOBUF_LIMIT:
        raise ExportError(
            "the model does not fit one ONNX file",
            seen=f"{size / 2**30:.2f} GiB of weights",
            allowed="below 2 GiB, the limit of the file format",
            fix="use a smaller variant of the model",
        )


def _write(proto: onnx.ModelProto, path: Path) -> str:
    """Check and write; the file's digest."""
    _check(proto)
    with atomic_path(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _check(proto: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError("the ONNX checker refuses the file", seen=_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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
