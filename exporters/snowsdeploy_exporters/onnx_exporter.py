"""Program -> one ONNX file in FP32, and from that file the other precisions and the files for serving."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import onnx
import onnx_ir as ir
import torch

from snowsdeploy.batch import Batch
from snowsdeploy.errors import ExportError, UsageError, first_line
from snowsdeploy.files import atomic_path, sha256_of
from snowsdeploy.layout.onnx_file import read_onnx_file
from snowsdeploy.layout.onnx_layout import LAYER_MAP_KEY, layer_nodes, node_layers
from snowsdeploy.models.onnx.file import OnnxFile
from snowsdeploy.models.onnx.read import main_opset
from snowsdeploy.models.program import Program
from snowsdeploy.settings.export import ExportSettings
from snowsdeploy.values import OnnxArtifact, Precision, Preprocessing, Role
from snowsdeploy_exporters.layer_map import layer_map
from snowsdeploy_exporters.serving import add_ends
from snowsdeploy_exporters.tidy import name_axes, name_outputs, strip_traces
from snowsdeploy_exporters.translate import quiet_export, translate

PROTOBUF_LIMIT = 2 * 2**30
OPSET = 20  # where the user asks for none


@dataclass(frozen=True)
class OnnxExporter:
    """Exports by `torch.onnx`'s graph-based exporter.

    Attributes:
        opset: ONNX operator set.
        keep_fp32: Names of layers or nodes that a conversion leaves in FP32; `*` and `?` stand for more.
    """

    opset: int = OPSET
    keep_fp32: tuple[str, ...] = ()

    def export(self, program: Program, path: Path, role: Role, metadata: Mapping[str, str]) -> OnnxArtifact:
        """Write one file; inputs and outputs have the program's names, their first dimension is `batch`.

        Of a program that was imported from an ONNX file it is that file with the program's weights.

        Args:
            program: The program; its zeros stay zeros, batch normalisation is folded into convolutions.
            path: The file to write; atomic.
            role: Recorded in the artifact.
            metadata: Provenance and what the user adds, written to the model's metadata.

        Raises:
            ExportError: The exporter lacks an operator, the file would exceed 2 GiB, or the ONNX checker refuses it.
            UsageError: A name in `keep_fp32` is of no layer or node; an imported file has another opset.
        """
        file = program.file
        proto = self._translated(program, metadata) if file is None else self._own(program, file, metadata)
        _matching_nodes(proto, self.keep_fp32)
        return OnnxArtifact(
            path=path,
            role=role,
            sha256=_write(proto, path),
            size_bytes=path.stat().st_size,
            opset=main_opset(proto),
            input_names=tuple(i.name for i in program.inputs),
            output_names=tuple(o.name for o in proto.graph.output),
            metadata=dict(metadata),
        )

    def _translated(self, program: Program, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """What `torch.onnx` makes of a program, under its names."""
        model, translated = translate(program, self.opset)
        layers = layer_map(model, program, translated)
        name_axes(model, program.signature)
        name_outputs(model, _tensor_outputs(program), program.signature.outputs)
        strip_traces(model)
        model.producer_name, model.producer_version = "snowsdeploy", None  # torch's; ours is in the metadata
        model.metadata_props.update({k: metadata[k] for k in sorted(metadata)})
        model.metadata_props[LAYER_MAP_KEY] = json.dumps(layers, sort_keys=True)
        _require_size(t.nbytes for v in model.graph.initializers.values() if (t := v.const_value) is not None)
        return _checked(ir.to_proto(model))

    def _own(self, program: Program, file: OnnxFile, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The user's own file with a program's weights, and what the user adds to its metadata."""
        opset = main_opset(file.model)
        if self.opset not in (OPSET, opset):
            raise UsageError(
                "an ONNX file keeps its operator set",
                seen=f"--opset {self.opset}",
                allowed=f"that of the file, {opset}",
                fix="leave it out, or convert the file first by onnx.version_converter.convert_version",
            )
        _require_size(tensor.ByteSize() for tensor in file.model.graph.initializer)
        proto = file.with_state(program.state_dict)
        known = {entry.key: entry for entry in proto.metadata_props}
        for key in sorted(metadata):
            (known.get(key) or proto.metadata_props.add(key=key)).value = metadata[key]
        return proto

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

        model = _with_layer_map(read_onnx_file(source.path))
        keep = _matching_nodes(model, self.keep_fp32)
        with quiet_export():
            converted = CONVERTERS[precision](model, [batch.numpy() for batch in images], keep)
        update = {
            "path": path,
            "precision": precision,
            "kept": converted.kept,
            "sha256": _write(_checked(converted.model), path),
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

        original = read_onnx_file(source.path)
        try:
            served = add_ends(
                original,
                preprocessing,
                uint8_input=settings.uint8_input,
                softmax=settings.softmax,
                top_k=settings.top_k,
            )
        except onnx.shape_inference.InferenceError as error:
            raise ExportError(
                "shapes cannot be inferred in the serving file",
                seen=first_line(error),
                allowed="a file in which every value has a shape",
                fix="leave out --uint8-input, --softmax and --top-k, and please report the model",
            ) from error
        require_equal(original, served, preprocessing, [batch.numpy() for batch in images])
        update = {
            "path": path,
            "sha256": _write(_checked(served), path),
            "size_bytes": path.stat().st_size,
            "output_names": tuple(o.name for o in served.graph.output),
        }
        return source.model_copy(update=update)


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
                fix="write a name as snowsdeploy inspect shows it; * and ? stand for any part",
            )
        found |= nodes
    return found


def _tensor_outputs(program: Program) -> list[bool]:
    """For each output that the exporter writes (it drops None) whether it is a tensor."""
    output = next(n for n in program.shipped.graph.nodes if n.op == "output")
    returned = [o for o in output.args[0] if o is not None]
    return [isinstance(o, torch.fx.Node) and isinstance(o.meta.get("val"), torch.Tensor) for o in returned]


def _with_layer_map(model: onnx.ModelProto) -> onnx.ModelProto:
    """A file that says by names of nodes what its layers are called: conversions rename weights."""
    if not any(entry.key == LAYER_MAP_KEY for entry in model.metadata_props):
        for node in model.graph.node:
            node.name = node.name or f"node_of_{node.output[0]}"
        model.metadata_props.add(key=LAYER_MAP_KEY, value=json.dumps(layer_nodes(model), sort_keys=True))
    return model


def _require_size(tensors: Iterable[int]) -> None:
    """Before the weights are copied into a message that could not be written."""
    size = sum(tensors)
    if size >= PROTOBUF_LIMIT:
        raise ExportError(
            "the model does not fit one ONNX file",
            seen=f"{size / 2**30:.2f} GiB of weights",
            allowed="below 2 GiB, the limit of the file format",
            fix="use a smaller variant of the model",
        )


def _write(proto: onnx.ModelProto, path: Path) -> str:
    """Write; the file's digest."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
    return sha256_of(path)


def _checked(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model that this package made, once the ONNX checker has taken it."""
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            "the ONNX checker refuses the file",
            seen=first_line(error),
            allowed="a file that onnx.checker.check_model accepts",
            fix="try another --opset, and please report the model",
        ) from error
    return proto
