"""FP16 by ONNX Runtime's converter, with the nodes whose values would overflow left in FP32."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir
from onnx import ModelProto, shape_inference
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxruntime.transformers.float16 import convert_float_to_float16

from snowsdeploy.errors import ExportError
from snowsdeploy_exporters.precision.converted import ASKED, Converted, Images
from snowsdeploy_exporters.precision.values import largest_values, run_model

LARGEST = float(np.finfo(np.float16).max)
MARGIN = 4.0  # images that were not measured may reach further


def to_fp16(model: ModelProto, batches: Sequence[Images], keep: Collection[str] = ()) -> Converted:
    """Convert weights and activations; inputs and outputs stay FP32.

    Args:
        model: An FP32 model; not changed.
        batches: Images `[batch, C, H, W]` on which ranges are measured.
        keep: Names of nodes that stay in FP32 whatever their values.

    Raises:
        ExportError: The converted model gives NaN or Inf on these images.
    """
    largest = largest_values(model, batches)
    kept = {node.name: ASKED for node in model.graph.node if node.name in keep}
    for node in model.graph.node:
        reach = max((largest.get(name, 0.0) for name in [*node.input, *node.output]), default=0.0)
        if reach * MARGIN > LARGEST:
            kept[node.name] = f"values up to {reach:.3g}"
    source = ModelProto()
    source.CopyFrom(model)  # the converter works in place
    half = _tidied(convert_float_to_float16(source, keep_io_types=True, node_block_list=list(kept)))
    for outputs in run_model(half, batches):
        if not all(np.isfinite(output).all() for output in outputs):
            raise ExportError(
                "the model overflows in FP16",
                seen=f"NaN or Inf in its output, with {len(kept)} nodes left in FP32",
                allowed=f"outputs within {LARGEST:g} on the calibration images",
                fix="leave fp16 out of --precision for this model",
            )
    return Converted(half, kept)


def _tidied(model: ModelProto) -> ModelProto:
    """What the converter leaves to do.

    It casts around every node that stays in FP32, so that a value between two of them would pass through FP16 after
    all; and it appends its casts at the end, where ONNX wants every value before its use.
    """
    del model.graph.value_info[:]  # types before the conversion, some of them
    converted = ir.from_proto(model)
    for node in list(converted.graph):
        wide = _value_before_narrowing(node)
        if wide is not None:
            ir.convenience.replace_all_uses_with(node.outputs[0], wide)
    RemoveUnusedNodesPass()(converted)
    converted.graph.sort()
    return shape_inference.infer_shapes(ir.to_proto(converted))


def _value_before_narrowing(node: ir.Node) -> ir.Value | None:
    """The FP32 value that was cast to FP16 and is cast back by this node; None for any other node."""
    if not _casts(node, ir.DataType.FLOAT) or node.inputs[0] is None or node.outputs[0].is_graph_output():
        return None
    narrow = node.inputs[0].producer()
    return narrow.inputs[0] if narrow is not None and _casts(narrow, ir.DataType.FLOAT16) else None


def _casts(node: ir.Node, to: ir.DataType) -> bool:
    return node.op_type == "Cast" and node.attributes["to"].as_int() == to
