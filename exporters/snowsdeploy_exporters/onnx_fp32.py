"""Program -> one ONNX file in FP32."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir
import torch

from snowsdeploy.artifacts import OnnxArtifact
from snowsdeploy.errors import ExportError
from snowsdeploy.files import atomic_path
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.sparsity.onnx_layout import LAYER_MAP_KEY

PROTOBUF_LIMIT = 2 * 2**30
BATCH = "batch"
_PRODUCTS = {"Conv", "Gemm", "MatMul"}
_PLACEHOLDER = re.compile(r"%(\w+)")


@dataclass(frozen=True)
class OnnxExporter:
    """Exports by `torch.onnx`'s graph-based exporter.

    Attributes:
        opset: ONNX operator set.
    """

    opset: int = 20

    def export(
        self, program: Program, path: Path, role: Literal["dense", "sparse"], metadata: Mapping[str, str]
    ) -> OnnxArtifact:
        """Write one file with input `input`, outputs `output` (or `output_0` ...), batch dimension `batch`.

        Args:
            program: The program; its zeros stay zeros, batch normalisation is folded into convolutions.
            path: The file to write; atomic.
            role: Recorded in the artifact.
            metadata: Provenance, written to the model's metadata.

        Raises:
            ExportError: The exporter lacks an operator, the file would exceed 2 GiB, or the ONNX checker refuses it.
        """
        model = self._convert(program)
        layers = _layer_map(model, program)
        _name_batch(model)
        _strip_traces(model)
        model.producer_name = "snowsdeploy"
        model.metadata_props.update({k: metadata[k] for k in sorted(metadata)})
        model.metadata_props[LAYER_MAP_KEY] = json.dumps(layers, sort_keys=True)
        proto = ir.to_proto(model)
        if proto.ByteSize() >= PROTOBUF_LIMIT:
            raise ExportError(
                "the model does not fit one ONNX file",
                seen=f"{proto.ByteSize() / 2**30:.1f} GiB",
                allowed="below 2 GiB",
            )
        _check(proto)
        with atomic_path(path) as temporary:
            temporary.write_bytes(proto.SerializeToString(deterministic=True))
        with path.open("rb") as stream:
            digest = file_digest(stream, "sha256").hexdigest()
        return OnnxArtifact(
            path=path,
            role=role,
            sha256=digest,
            size_bytes=path.stat().st_size,
            opset=self.opset,
            input_name=proto.graph.input[0].name,
            output_names=tuple(o.name for o in proto.graph.output),
            metadata=dict(metadata),
        )

    def _convert(self, program: Program) -> ir.Model:
        count = len(program.exported.graph_signature.user_outputs)
        names = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
        try:
            with _quiet():
                converted = torch.onnx.export(
                    program.exported,
                    dynamo=True,
                    verbose=False,
                    opset_version=self.opset,
                    input_names=["input"],
                    output_names=names,
                    optimize=True,
                )
        except Exception as error:  # the exporter raises many types, most of them private
            text = str(error.__cause__ or error)
            operator = re.search(r"(aten[.:]+[\w.]+)", text)
            raise ExportError(
                "torch.onnx cannot convert the program",
                seen=operator[1] if operator else text.strip().splitlines()[0][:200],
                fix="try another --opset, or replace that operation in the model",
            ) from error
        assert converted is not None
        return converted.model


def _layer_map(model: ir.Model, program: Program) -> dict[str, list[str]]:
    """State-dict name of each weight -> names of the ONNX nodes that multiply by it.

    An initializer keeps the name of its parameter unless the exporter transposed or folded it; then the node's record
    of the graph node it came from names the parameter's placeholder.
    """
    graph = ProgramGraph(program)
    by_placeholder = {graph.placeholder(weight).name: weight for weight in graph.calls}
    layers: dict[str, list[str]] = {}
    for node in model.graph.all_nodes():
        if node.op_type not in _PRODUCTS or node.name is None:
            continue
        initializers = {v.name for v in node.inputs if v is not None}
        found = [f for f in by_placeholder.values() if f in initializers]
        if not found:
            text = node.metadata_props.get("pkg.torch.onnx.fx_node", "")
            found = [by_placeholder[p] for p in _PLACEHOLDER.findall(text) if p in by_placeholder]
        for name in found[:1]:
            layers.setdefault(name, []).append(node.name)
    return layers


def _name_batch(model: ir.Model) -> None:
    """The exporter calls the batch dimension by its symbol (`s77`); users and engines look for `batch`."""
    first = model.graph.inputs[0].shape
    if first is None or not isinstance(first[0], ir.SymbolicDim):
        raise ExportError("the exported input has a fixed batch size", seen=str(first))
    symbol = first[0].value
    pattern = re.compile(rf"\b{re.escape(str(symbol))}\b")
    values = {*model.graph.inputs, *model.graph.outputs}
    values |= {v for node in model.graph.all_nodes() for v in node.outputs}
    for value in values:
        if value.shape is None:
            continue
        dims = [
            pattern.sub(BATCH, str(d.value)) if isinstance(d, ir.SymbolicDim) and d.value is not None else d
            for d in value.shape
        ]
        value.shape = ir.Shape(dims)


def _strip_traces(model: ir.Model) -> None:
    """Stack traces hold paths of this machine, and are most of a small file."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    for value in {v for node in model.graph.all_nodes() for v in node.outputs} | set(model.graph.inputs):
        value.metadata_props.clear()
    for initializer in model.graph.initializers.values():
        initializer.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.doc_string = None


def _check(proto: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError("the ONNX checker refuses the file", seen=str(error).strip().splitlines()[0][:200]) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and warns about its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
