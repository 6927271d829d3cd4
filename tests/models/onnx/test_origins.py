"""Every entry of the state dict knows its initializer, and a new value finds its way back into the user's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from snowsdeploy.errors import ExportError
from snowsdeploy.models.onnx.importer import import_onnx
from snowsdeploy.models.onnx.layouts import Permute, Reshape, Steps, arranged, inverse, joined, shape_after
from snowsdeploy.models.onnx.origin import Origin
from snowsdeploy.models.onnx.read import read_onnx
from snowsdeploy.models.onnx.write_back import with_values
from tests.models.onnx.check import check, imported, model_of, node, run_onnx, same

RNG = np.random.default_rng(0)


def reals(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


@st.composite
def chains(draw: st.DrawFn) -> tuple[tuple[int, ...], Steps]:
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=2, max_size=4)))
    start, steps = shape, []
    for _ in range(draw(st.integers(0, 5))):
        if draw(st.booleans()):
            steps.append(Permute(tuple(draw(st.permutations(range(len(shape)))))))
        else:
            other = draw(st.sampled_from([(int(np.prod(shape)),), (*shape, 1), (1, *shape), shape]))
            steps.append(Reshape(shape, other))
        shape = shape_after(shape, (steps[-1],))
    return start, tuple(steps)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(chains())
def test_a_chain_of_steps_is_undone(chain: tuple[tuple[int, ...], Steps]) -> None:
    shape, steps = chain
    value = reals(*shape)
    origin = Origin("w", "float32", joined(steps))
    held = arranged(value, steps)
    assert (arranged(value, joined(steps)) == held).all()
    assert (origin.stored(held) == value).all()
    assert joined((*steps, *inverse(steps))) == () or any(isinstance(step, Reshape) for step in steps)


def weights(*, half: bool = False) -> ModelProto:
    """A convolution, a product with a matrix, and one whose matrix is reached by Cast and Transpose."""
    kind = np.float16 if half else np.float32
    nodes = [
        node("Conv", "x conv.weight conv.bias", "c", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", "c", "p"),
        node("Flatten", "p", "f"),
        node("MatMul", "f onnx::MatMul_7", "m"),
        node("Transpose", "packed", "turned", perm=[1, 0]),
        node("Identity", "turned", "same"),
        node("MatMul", "m same", "n"),
        node("Add", "n shift"),
    ]
    constants = {
        "conv.weight": reals(4, 3, 3, 3), "conv.bias": reals(4), "onnx::MatMul_7": reals(4, 6), "packed": reals(5, 6),
        "shift": reals(5),
    }  # fmt: skip
    values = {name: value.astype(kind) for name, value in constants.items()}
    return model_of(nodes, {"x": reals(2, 3, 8, 8).astype(kind)}, values, 17)


def test_layouts_and_names_of_weights() -> None:
    result = imported(weights())
    assert {key: (o.initializer, o.transposed) for key, o in result.file.origins.items()} == {
        "conv.weight": ("conv.weight", False),
        "conv.bias": ("conv.bias", False),
        "onnx_MatMul_7.weight": ("onnx::MatMul_7", True),
        "packed.weight": ("packed", False),
        "shift": ("shift", False),
    }
    shapes = {name: tuple(value.shape) for name, value in result.module.named_parameters()}
    assert shapes == {
        "conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "onnx_MatMul_7.weight": (6, 4), "packed.weight": (5, 6),
    }  # fmt: skip
    assert set(result.file.origins) == set(result.module.state_dict())


def test_layers_are_whole_nodes_of_the_program() -> None:
    program = torch.export.export(imported(weights()).module, (torch.zeros(2, 3, 8, 8),))
    targets = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert targets.count("aten.linear.default") == 2
    assert targets.count("aten.conv2d.default") == 1
    assert not any("permute" in target or target == "aten.t.default" for target in targets)


@pytest.mark.parametrize("half", [False, True])
def test_old_values_give_the_same_bytes_and_new_ones_new_outputs(half: bool) -> None:
    model = weights(half=half)
    before = model.SerializeToString()
    result = imported(model)
    assert result.module.computed_in_float32 == half
    state = result.module.state_dict()
    assert with_values(model, state, result.file.origins).SerializeToString() == before
    new = {key: torch.where(torch.rand_like(value) < 0.5, 0.0, value) for key, value in state.items()}
    changed = with_values(model, new, result.file.origins)
    assert model.SerializeToString() == before
    assert [(t.name, t.data_type, t.dims) for t in changed.graph.initializer] == [
        (t.name, t.data_type, t.dims) for t in model.graph.initializer
    ]
    result.module.load_state_dict(new)
    value = reals(2, 3, 8, 8).astype(np.float16 if half else np.float32)
    with torch.no_grad():
        outputs = result.module(torch.from_numpy(value))
    expected = [array.astype(np.float32) for array in run_onnx(changed, {"x": value})]
    same(outputs, expected, *((2e-2, 2e-2) if half else (1e-4, 1e-5)))


ENCODINGS = {
    "float_data": (TensorProto.FLOAT, False),
    "raw_data": (TensorProto.FLOAT, True),
    "half as int32_data": (TensorProto.FLOAT16, False),
    "double_data": (TensorProto.DOUBLE, False),
    "raw bfloat16": (TensorProto.BFLOAT16, True),
    "raw double": (TensorProto.DOUBLE, True),
}


@pytest.mark.parametrize("held_in", ["initializer", "constant"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_are_kept(encoding: str, held_in: str) -> None:
    kind, raw = ENCODINGS[encoding]
    value = RNG.standard_normal((4, 3)).astype(helper.tensor_dtype_to_np_dtype(kind))
    tensor = (
        numpy_helper.from_array(value, "w")
        if raw
        else helper.make_tensor("w", kind, (4, 3), value.reshape(-1).tolist())
    )
    model = model_of([node("MatMul", "x w")], {"x": reals(2, 4)}, {"w": reals(4, 3)}, 17)
    del model.graph.initializer[:]
    if held_in == "constant":
        model.graph.node.insert(0, node("Constant", "", "w", value=tensor))
    else:
        model.graph.initializer.append(tensor)
    result = imported(model)
    assert result.file.origins["w.weight"].constant_node == (held_in == "constant")
    old = dict(result.module.state_dict())
    assert with_values(model, old, result.file.origins).SerializeToString() == model.SerializeToString()
    new = old["w.weight"].clone()
    new[0] = 0
    changed = with_values(model, {"w.weight": new}, result.file.origins)
    place = changed.graph.node[0].attribute[0].t if held_in == "constant" else changed.graph.initializer[0]
    assert place.HasField("raw_data") == raw
    expected = value.copy()
    expected[:, 0] = 0
    assert (numpy_helper.to_array(place) == expected).all()


def test_numbers_of_a_constant_node_are_written_back() -> None:
    nodes = [node("Constant", "", "c", value_floats=[1.0, 2.5, -3.0]), node("Add", "x c")]
    model = model_of(nodes, {"x": reals(2, 3)}, {}, 17)
    result = imported(model)
    assert with_values(model, result.module.state_dict(), result.file.origins) == model
    changed = with_values(model, {"c": torch.tensor([1.0, 0.0, -3.0])}, result.file.origins)
    assert list(changed.graph.node[0].attribute[0].floats) == [1.0, 0.0, -3.0]


def test_a_tensor_of_two_layers_is_one_parameter() -> None:
    nodes = [
        node("Gather", "table i", "e"),
        node("Transpose", "table", "turned", perm=[1, 0]),
        node("MatMul", "e turned"),
    ]
    result = check(nodes, {"i": np.array([[0, 2], [1, 1]])}, {"table": reals(3, 4)})
    assert list(result.file.origins) == ["table.weight"]
    assert result.file.origins["table.weight"].steps == ()
    nodes = [node("MatMul", "x w", "a"), node("Gemm", "a w", transB=1)]
    result = check(nodes, {"x": reals(2, 4)}, {"w": reals(4, 4)}, export=True)
    assert list(result.file.origins) == ["w.weight"]


def test_another_model_is_refused() -> None:
    model, result = weights(), imported(weights())
    with pytest.raises(ExportError, match="another shape"):
        with_values(model, {"shift": torch.zeros(7)}, result.file.origins)
    del model.graph.initializer[:]
    with pytest.raises(ExportError, match="lacks a tensor"):
        with_values(model, {"shift": torch.zeros(5)}, result.file.origins)


def test_constants_of_local_functions() -> None:
    weight = numpy_helper.from_array(reals(4, 3), "w")
    body = [node("Constant", "", "w", value=weight), node("MatMul", "a w", "b")]
    function = helper.make_function("own", "Dense", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    call = helper.make_node("Dense", ["x"], ["y"], domain="own")
    model = model_of([node("Identity", "x")], {"x": reals(2, 4)}, {}, 17)
    model.graph.node[0].CopyFrom(call)
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    result = imported(model)
    (key,) = result.file.origins
    changed = with_values(model, {key: torch.zeros(3, 4)}, result.file.origins)
    assert not run_onnx(changed, {"x": reals(2, 4)})[0].any()


def test_initializers_that_are_inputs_too_are_no_inputs() -> None:
    model = weights()
    model.graph.input.append(helper.make_tensor_value_info("shift", TensorProto.FLOAT, [5]))
    result = imported(model)
    assert [(i.name, i.shape, i.dtype) for i in result.inputs] == [("x", ("x_0", "x_1", "x_2", "x_3"), "float32")]
    assert result.outputs == ("y",)
    assert (result.opset, len(result.sha256)) == (17, 64)


def test_external_tensors_are_read_and_put_in_the_copy(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(weights(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    result, model = import_onnx(path), read_onnx(path)
    assert with_values(model, result.module.state_dict(), result.file.origins) == model
    before = result.sha256
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert import_onnx(path).sha256 != before
