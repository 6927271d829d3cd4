"""Small ONNX files written by hand with `onnx.helper`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

node = helper.make_node


def initializer(name: str, values: np.ndarray | TensorProto) -> TensorProto:
    return values if isinstance(values, TensorProto) else numpy_helper.from_array(np.asarray(values), name)


def save(
    path: Path,
    nodes: Sequence[NodeProto],
    weights: Mapping[str, np.ndarray | TensorProto],
    *,
    opset: int = 21,
    metadata: Mapping[str, str] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
) -> Path:
    """A file with input `x`, output `y`, both of unknown shape."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [initializer(name, values) for name, values in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=imports, functions=list(functions))
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, path)
    return path


def two_four(shape: tuple[int, ...], axis: int, seed: int = 0) -> np.ndarray:
    """Random weights with at most two non-zeros in each four along an axis."""
    rng = np.random.default_rng(seed)
    weight = np.moveaxis(rng.uniform(0.5, 1.5, shape), axis, -1).copy()
    groups = weight.reshape(-1, 4)
    drop = rng.random(groups.shape).argsort(-1)[:, :2]
    np.put_along_axis(groups, drop, 0.0, -1)
    return np.ascontiguousarray(np.moveaxis(groups.reshape(weight.shape), -1, axis)).astype(np.float32)
