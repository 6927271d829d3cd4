"""What flows through an ONNX model on real images, measured by ONNX Runtime without any graph rewriting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, shape_inference

from snowsdeploy_exporters.precision.converted import Images, named

Outputs = list[NDArray[np.float32]]


def run_model(model: ModelProto, batches: Sequence[Images]) -> Iterator[Outputs]:
    """The outputs for each batch, on the CPU."""
    session = ort.InferenceSession(model.SerializeToString(), _options(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for images in batches:
        yield [np.asarray(output) for output in session.run(None, named(images, name))]


def largest_values(model: ModelProto, batches: Sequence[Images]) -> dict[str, float]:
    """The largest magnitude of every FP32 value between nodes, by name; infinite where one is not finite.

    Args:
        model: An FP32 model; not changed.
        batches: Images `[batch, C, H, W]`; a batch's values are all held at once.
    """
    watched = ModelProto()
    watched.CopyFrom(model)
    known = {o.name for o in watched.graph.output}
    watched.graph.output.extend(v for v in _floats(watched) if v.name not in known)
    names = [o.name for o in watched.graph.output]
    found = dict.fromkeys(names, 0.0)
    for outputs in run_model(watched, batches):
        for name, value in zip(names, outputs, strict=True):
            largest = float(np.abs(value).max()) if value.size else 0.0
            found[name] = max(found[name], largest) if np.isfinite(largest) else float("inf")
    return found


def _floats(model: ModelProto) -> list[ValueInfoProto]:
    inferred = shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*inferred.value_info, *inferred.output]}
    produced = [name for node in model.graph.node for name in node.output]
    wanted = [name for name in produced if types.get(name) == TensorProto.FLOAT]
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted]


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return options
