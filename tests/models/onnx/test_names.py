"""Paths of a module that are valid, unique and the same at each import."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snowsdeploy.models.onnx.names import state_paths

PARTS = ("weight", "a", "a.weight", "a_1", "float", "training", "graph", "forward", "0", "", "/x/y", "::", "a::b", "é")


def test_usual_names() -> None:
    names = [
        ("conv1.weight", True),
        ("conv1.bias", False),
        ("onnx::MatMul_12", True),
        ("/layers/0/Constant_output_0", False),
        ("conv2d_1.w_0", True),
        ("float.weight", True),
        ("", False),
    ]
    assert list(state_paths(names).values()) == [
        "conv1.weight",
        "conv1.bias",
        "onnx_MatMul_12.weight",
        "layers_0_Constant_output_0",
        "conv2d_1.w_0.weight",
        "float_1.weight",
        "constant",
    ]


def test_a_tensor_and_a_folder_of_one_name() -> None:
    assert state_paths([("a", False), ("a.b", False), ("a", True)][:2]) == {"a": "a", "a.b": "a_1.b"}
    assert state_paths([("a.b", False), ("a", False)]) == {"a.b": "a.b", "a": "a_1"}
    assert state_paths([("x::y", True), ("x/y", True)]) == {"x::y": "x_y.weight", "x/y": "x_y_1.weight"}


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from(PARTS), max_size=3).map(".".join), st.booleans()), unique_by=lambda x: x[0]
    )
)
def test_any_names(names: list[tuple[str, bool]]) -> None:
    paths = state_paths(names, frozenset({"graph"}))
    assert len(set(paths.values())) == len(names)
    assert paths == state_paths(names, frozenset({"graph"}))
    root = nn.Module()
    for name, is_weight in names:
        path = paths[name]
        assert path.endswith(".weight") or not is_weight
        assert path.split(".")[0] != "graph"
        module = root
        *folders, leaf = path.split(".")
        for folder in folders:
            if folder not in module._modules:
                module.add_module(folder, nn.Module())
            module = module.get_submodule(folder)
        module.register_buffer(leaf, None)
