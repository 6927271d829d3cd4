"""What cannot be imported is refused with the node, the reason and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from snowsdeploy.errors import GraphError, SourceError
from snowsdeploy.models.onnx.importer import import_onnx
from snowsdeploy.models.onnx.operators import check_operators
from snowsdeploy.models.onnx.read import read_onnx
from tests.models.onnx.check import imported, model_of, node


def zeros(*shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.float32)


def saved(folder: Path, model: ModelProto) -> Path:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def relu(opset: int = 17) -> ModelProto:
    return model_of([node("Relu", "x")], {"x": zeros(2, 3)}, {}, opset)


def of_nodes(*nodes: NodeProto) -> ModelProto:
    graph = helper.make_graph(list(nodes), "g", [helper.make_tensor_value_info("x", 1, [2])], [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07\x12\x04torch"[:7]])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="truncated, damaged"):
        read_onnx(path)


def test_a_cut_off_file(tmp_path: Path) -> None:
    path = saved(tmp_path, model_of([node("MatMul", "x w")], {"x": zeros(2, 30)}, {"w": zeros(30, 30)}, 17))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(SourceError, match="damaged"):
        import_onnx(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        read_onnx(tmp_path / "none.onnx")


def test_old_opsets(tmp_path: Path) -> None:
    model = relu()
    model.opset_import[0].version = 8
    with pytest.raises(SourceError, match="too old") as caught:
        read_onnx(saved(tmp_path, model))
    assert "opset 8" in str(caught.value)


def test_no_inputs(tmp_path: Path) -> None:
    model = relu()
    del model.graph.input[:]
    model.graph.initializer.append(numpy_helper.from_array(zeros(2, 3), "x"))
    with pytest.raises(SourceError, match="no inputs"):
        import_onnx(saved(tmp_path, model))


def test_sparse_initializers(tmp_path: Path) -> None:
    model = relu()
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0]), numpy_helper.from_array(np.array([0])), [4]
        )
    )
    with pytest.raises(SourceError, match="sparse"):
        read_onnx(saved(tmp_path, model))


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", ""])
def test_external_tensors_outside_of_the_folder(tmp_path: Path, location: str) -> None:
    model = model_of([node("Add", "x w")], {"x": zeros(2, 3)}, {"w": zeros(3)}, 17)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    with pytest.raises(SourceError, match="outside of its folder"):
        read_onnx(saved(tmp_path, model))


def test_missing_external_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = model_of([node("Add", "x w")], {"x": zeros(2, 3)}, {"w": zeros(3)}, 17)
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(SourceError, match="belongs to the ONNX file is missing") as caught:
        read_onnx(path)
    assert "copy weights.bin beside model.onnx" in str(caught.value)


OPERATORS = {
    "control flow": "If Loop Scan SequenceAt SequenceConstruct",
    "quantised": "QuantizeLinear DequantizeLinear QLinearConv MatMulInteger ConvInteger",
    "NonMaxSuppression": "NonMaxSuppression",
    "size depends on data": "NonZero Unique Compress",
    "cannot be imported": "StringNormalizer TfIdfVectorizer Det",
}


@pytest.mark.parametrize("message", OPERATORS)
def test_operators_are_named_with_their_number_and_first_node(message: str) -> None:
    names = OPERATORS[message].split()
    nodes = [node(name, "x", f"{name}_{at}") for name in names for at in range(2)]
    with pytest.raises(SourceError, match=message) as caught:
        check_operators(of_nodes(*nodes))
    for name in names:
        assert f"{name} x2 (first: {name}_of_{name}_0)" in str(caught.value)


def test_quantised_files_are_told_to_pass_the_fp32_model() -> None:
    with pytest.raises(SourceError, match="quantised") as caught:
        check_operators(of_nodes(node("QLinearAdd", "x"), node("If", "x")))
    assert "FP32 model" in str(caught.value)


def test_custom_domains() -> None:
    own = helper.make_node("FusedConv", ["x"], ["y"], domain="com.microsoft")
    with pytest.raises(SourceError, match="custom domain") as caught:
        check_operators(of_nodes(own))
    assert "com.microsoft.FusedConv x1 (first: y)" in str(caught.value)


CASES: dict[str, tuple[NodeProto, dict[str, Any], dict[str, Any]]] = {
    "output of it is not supported": (node("MaxPool", "x", "y i", kernel_shape=[2, 2]), {"x": zeros(1, 1, 4, 4)}, {}),
    "attribute training_mode": (
        node("BatchNormalization", "x s s s s", "y m v", training_mode=1), {"x": zeros(1, 2, 4, 4)}, {"s": zeros(2)},
    ),
    "attribute antialias": (
        node("Resize", "x - s", mode="linear", antialias=1), {"x": zeros(1, 1, 4, 4)}, {"s": np.ones(4, np.float32)},
    ),
    "coordinates are not supported": (
        node("Resize", "x r s", coordinate_transformation_mode="tf_crop_and_resize"), {"x": zeros(1, 1, 4, 4)},
        {"r": zeros(8), "s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "its shape depends on data": (node("Reshape", "x s"), {"x": zeros(4), "s": np.array([2, 2])}, {}),
    "resets before the product": (
        node("GRU", "x w r", hidden_size=2), {"x": zeros(3, 1, 2)}, {"w": zeros(1, 6, 2), "r": zeros(1, 6, 2)},
    ),
    "input sequence_lens": (
        node("RNN", "x w r - l", hidden_size=2), {"x": zeros(3, 1, 2)},
        {"w": zeros(1, 2, 2), "r": zeros(1, 2, 2), "l": np.array([3], np.int32)},
    ),
    "activations are not supported": (
        node("RNN", "x w r", hidden_size=2, activations=["Elu"]), {"x": zeros(3, 1, 2)},
        {"w": zeros(1, 2, 2), "r": zeros(1, 2, 2)},
    ),
    "attribute clip": (
        node("RNN", "x w r", hidden_size=2, clip=1.0), {"x": zeros(3, 1, 2)},
        {"w": zeros(1, 2, 2), "r": zeros(1, 2, 2)},
    ),
    "attribute reduction": (
        node("ScatterND", "x i u", reduction="mul"), {"x": zeros(4, 2)}, {"i": np.array([[1]]), "u": zeros(1, 2)},
    ),
    "in training mode": (node("Dropout", "x - t"), {"x": zeros(4)}, {"t": np.array(True)}),
    "type is not supported": (node("Cast", "x", to=TensorProto.STRING), {"x": zeros(4)}, {}),
}  # fmt: skip


@pytest.mark.parametrize("message", CASES)
def test_attributes_that_are_not_supported_name_the_node(message: str) -> None:
    made, inputs, constants = CASES[message]
    outputs = [name for name in made.output if name]
    module = imported(model_of([made], inputs, constants, 18, outputs)).module
    with pytest.raises(SourceError, match=message) as caught:
        module(*map(torch.from_numpy, inputs.values()))
    assert f"ONNX node {made.name} ({made.op_type})" in str(caught.value)


def test_another_number_of_inputs() -> None:
    with pytest.raises(GraphError, match="another number of inputs"):
        imported(relu()).module()


def test_errors_of_torch_name_the_node() -> None:
    module = imported(model_of([node("MatMul", "x w")], {"x": zeros(2, 3)}, {"w": zeros(3, 3)}, 17)).module
    with pytest.raises(RuntimeError) as caught:
        module(torch.zeros(2, 5))
    assert caught.value.__notes__ == ["in the ONNX node MatMul_of_y (MatMul)"]


def test_tensors_of_other_types() -> None:
    model = model_of([node("Add", "x w")], {"x": zeros(2, 3)}, {"w": zeros(3)}, 17)
    tensor = helper.make_tensor("w", TensorProto.FLOAT8E4M3FN, [3], [1.0, 2.0, 3.0])
    model.graph.initializer[0].CopyFrom(tensor)
    with pytest.raises(SourceError, match="a type that cannot be imported"):
        imported(model)
