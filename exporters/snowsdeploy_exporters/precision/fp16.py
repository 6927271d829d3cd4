"""FP16 by ONNX Runtime's converter, with the nodes whose values would overflow left in FP32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx import ModelProto
from onnxruntime.transformers.float16 import convert_float_to_float16

from snowsdeploy.errors import ExportError
from snowsdeploy_exporters.precision.converted import Converted, Images
from snowsdeploy_exporters.precision.values import largest_values, run_model

LARGEST = float(np.finfo(np.float16).max)
MARGIN = 4.0  # images that were not measured may reach further


def to_fp16(model: ModelProto, batches: Sequence[Images]) -> Converted:
    """Convert weights and activations; inputs and outputs stay FP32.

    Args:
        model: An FP32 model; not changed.
        batches: Images `[batch, C, H, W]` on which ranges are measured.

    Raises:
        ExportError: The converted model gives NaN or Inf on these images.
    """
    largest = largest_values(model, batches)
    kept = {}
    for node in model.graph.node:
        reach = max((largest.get(name, 0.0) for name in [*node.input, *node.output]), default=0.0)
        if reach * MARGIN > LARGEST:
            kept[node.name] = f"values up to {reach:.3g}"
    source = ModelProto()
    source.CopyFrom(model)  # the converter works in place
    half = _sorted(convert_float_to_float16(source, keep_io_types=True, node_block_list=list(kept)))
    for outputs in run_model(half, batches):
        if not all(np.isfinite(output).all() for output in outputs):
            raise ExportError(
                "the model overflows in FP16",
                seen=f"NaN or Inf in its output, with {len(kept)} nodes left in FP32",
                fix="leave fp16 out of --precision for this model",
            )
    return Converted(half, kept)


def _sorted(model: ModelProto) -> ModelProto:
    """The converter appends its casts at the end; ONNX wants every value before its use."""
    converted = ir.from_proto(model)
    converted.graph.sort()
    return ir.to_proto(converted)
