"""One small ONNX model in ONNX Runtime and as a module, with the same outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import ModelProto, NodeProto, helper, numpy_helper

from snowsdeploy.models.onnx.importer import ImportedOnnx, import_onnx

Arrays = Mapping[str, np.ndarray[Any, Any]]
IR_VERSION = 8


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> NodeProto:
    """A node; names are separated by spaces, and `-` is an input that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=f"{op}_of_{outputs.split(maxsplit=1)[0]}", **attributes)


@dataclass
class Case:
    nodes: Sequence[NodeProto]
    inputs: Arrays
    initializers: Arrays = field(default_factory=dict)
    outputs: Sequence[str] = ("y",)


def model_of(
    nodes: Sequence[NodeProto], inputs: Arrays, initializers: Arrays, opset: int, outputs: Sequence[str] = ("y",)
) -> ModelProto:
    """A model whose inputs have the ranks of these arrays, and no fixed sizes."""
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), [f"{name}_{at}" for at in range(value.ndim)]
            )
            for name, value in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    ir = max(IR_VERSION, onnx.helper.find_min_ir_version_for([helper.make_opsetid("", opset)]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    inferred = onnx.shape_inference.infer_shapes(model)
    known = {info.name: info for info in inferred.graph.output}
    for output in model.graph.output:
        if known[output.name].type.tensor_type.elem_type:
            output.CopyFrom(known[output.name])
        else:  # onnx infers nothing for some operators that are functions
            output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        output.type.tensor_type.ClearField("shape")
    return model


def imported(model: ModelProto) -> ImportedOnnx:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        return import_onnx(path)


def run_onnx(model: ModelProto, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {name: np.asarray(value) for name, value in inputs.items()}))


def check(
    nodes: Sequence[NodeProto],
    inputs: Arrays,
    initializers: Arrays | None = None,
    opset: int = 17,
    *,
    outputs: Sequence[str] = ("y",),
    export: bool = False,
    dynamic: Mapping[str, Sequence[int]] | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> ImportedOnnx:
    """The module, and the exported program where that is asked for, give what ONNX Runtime gives.

    Args:
        dynamic: Axes of each input that the exported program leaves open.
    """
    model = model_of(nodes, inputs, initializers or {}, opset, outputs)
    result = imported(model)
    expected = run_onnx(model, inputs)
    tensors = [torch.from_numpy(np.array(value)) for value in inputs.values()]
    with torch.no_grad():
        same(result.module(*tensors), expected, rtol, atol)
        if export:
            axes = [dict.fromkeys((dynamic or {}).get(name, ()), torch.export.Dim.DYNAMIC) for name in inputs]
            program = torch.export.export(result.module, tuple(tensors), dynamic_shapes=(tuple(axes),), strict=False)
            same(program.module()(*tensors), expected, rtol, atol)
    return result


def same(results: Sequence[torch.Tensor], expected: Sequence[Any], rtol: float = 1e-4, atol: float = 1e-5) -> None:
    assert len(results) == len(expected)
    for result, want in zip(results, expected, strict=True):
        array = result.numpy()
        assert array.shape == np.asarray(want).shape
        assert array.dtype.kind == np.asarray(want).dtype.kind
        np.testing.assert_allclose(array.astype(np.float64), np.asarray(want, np.float64), rtol=rtol, atol=atol)
