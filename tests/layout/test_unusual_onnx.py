"""Files that lie, lack something or grow: listed as unproven, or refused at once."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

from snowsdeploy.errors import LayoutError, SourceError
from snowsdeploy.layout.onnx_layout import LAYER_MAP_KEY, inspect_onnx
from snowsdeploy.patterns.pattern import Pattern
from tests.layout.graphs import node, save, two_four

P24 = Pattern(2, 4)
GOOD = two_four((8, 8), 0)
PRODUCT = node("MatMul", ["x", "w"], ["y"])
SECOND = node("MatMul", ["y", "good"], ["z"])


def tensor(**fields: object) -> TensorProto:
    return TensorProto(
        **{"name": "v", "data_type": TensorProto.FLOAT, "dims": [8, 8], "raw_data": b"\0" * 256, **fields}
    )


def lying_initializer(**fields: object) -> tuple[list[NodeProto], dict[str, np.ndarray | TensorProto]]:
    return [node("MatMul", ["x", "v"], ["y"]), SECOND], {"v": tensor(**fields)}


def computed(*nodes: NodeProto) -> tuple[list[NodeProto], dict[str, np.ndarray | TensorProto]]:
    return [*nodes, PRODUCT, SECOND], {"v": GOOD}


UNREADABLE = {
    "too few bytes": lying_initializer(raw_data=b"\0" * 64),
    "huge and empty": lying_initializer(dims=[1 << 31, 1 << 31], raw_data=b""),
    "negative size": lying_initializer(dims=[-1, 8]),
    "unknown type": lying_initializer(data_type=99),
    "undefined type": lying_initializer(data_type=0),
    "texts": lying_initializer(data_type=TensorProto.STRING, raw_data=b"", string_data=[b"a"] * 64),
    "complex": lying_initializer(data_type=TensorProto.COMPLEX64, raw_data=b"\0" * 512),
    "short int4": lying_initializer(data_type=TensorProto.INT4, raw_data=b"\0"),
    "a permutation that is too short": computed(node("Transpose", ["v"], ["w"], perm=[0])),
    "a permutation that is none": computed(node("Transpose", ["v"], ["w"], perm=[0, 7])),
    "itself": computed(node("Identity", ["v"], ["w"]), node("Identity", ["w"], ["w"])),
    "each other": computed(
        node("Constant", [], ["a"], value=helper.make_tensor("t", 1, [1], [1.0])),
        node("Identity", ["a"], ["w"]),
        node("Identity", ["w"], ["a"]),
    ),
    "no value": computed(node("Constant", [], ["w"])),
    "a cast to nothing": computed(node("Cast", ["v"], ["w"])),
    "sums that double": computed(
        node("Identity", ["v"], ["s0"]),
        *(node("Add", [f"s{i}", f"s{i}"], [f"s{i + 1}"]) for i in range(60)),
        node("Identity", ["s60"], ["w"]),
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_listed_and_the_rest_is_judged(tmp_path: Path, case: str) -> None:
    nodes, weights = UNREADABLE[case]
    evidence = inspect_onnx(save(tmp_path / "m.onnx", nodes, weights | {"good": GOOD}), P24)
    bad, good = evidence.layers
    assert not bad.layout_valid
    assert "unproven, because" in bad.note
    assert good.layout_valid


@pytest.mark.parametrize(
    "products", [[node("Gemm", ["x"], ["y"])], [node("MatMul", [], ["y"])], [node("Conv", [], [])]]
)
def test_products_without_inputs_have_no_weight(tmp_path: Path, products: list[NodeProto]) -> None:
    assert not inspect_onnx(save(tmp_path / "m.onnx", products, {"good": GOOD}), P24).layers


@pytest.mark.parametrize("operator", ["Identity", "Transpose", "Flatten"])
def test_long_chains_are_followed(tmp_path: Path, operator: str) -> None:
    names = ["v", *(f"s{i}" for i in range(2999)), "w"]
    chain = [node(operator, [a], [b]) for a, b in pairwise(names)]
    (row,) = inspect_onnx(save(tmp_path / "m.onnx", [*chain, PRODUCT], {"v": GOOD}), P24).layers
    assert row.layout_valid
    assert row.tensor == "v"


def functions(calls: dict[str, list[str]]) -> list[onnx.FunctionProto]:
    made = []
    for name, called in calls.items():
        steps = ["x", *(f"t{i}" for i in range(len(called) - 1)), "y"]
        nodes = [
            helper.make_node(f, [a], [b], domain="" if f == "Relu" else "f")
            for f, a, b in zip(called, steps, steps[1:], strict=False)
        ]
        imports = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
        made.append(helper.make_function("f", name, ["x"], ["y"], nodes, imports))
    return made


GROWING = {
    "each other": {"A": ["B"], "B": ["A"]},
    "itself": {"A": ["A", "A"]},
    "doubling": {"A": ["F1", "F1"], **{f"F{i}": [f"F{i + 1}"] * 2 for i in range(1, 40)}, "F40": ["Relu"]},
    "deep": {"A": ["F1"], **{f"F{i}": [f"F{i + 1}"] for i in range(1, 2000)}, "F2000": ["Relu"]},
}


@pytest.mark.parametrize("case", GROWING)
def test_functions_that_grow_are_refused_before_they_are_inlined(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx.inliner, "inline_local_functions", lambda model: pytest.fail("was inlined"))
    call = helper.make_node("A", ["x"], ["y"], domain="f")
    path = save(tmp_path / "m.onnx", [call], {}, functions=functions(GROWING[case]), domains=["f"])
    with pytest.raises(SourceError, match="local functions"):
        inspect_onnx(path, P24)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a": "bc"}', '{"a": [["b"]]}', "[]", '{"a": 1}'])
def test_a_damaged_map_of_layers(tmp_path: Path, text: str) -> None:
    path = save(tmp_path / "m.onnx", [PRODUCT], {"w": GOOD}, metadata={LAYER_MAP_KEY: text})
    with pytest.raises(LayoutError, match="damaged"):
        inspect_onnx(path, P24)


def test_scales_that_would_spread_a_weight_over_all_memory(tmp_path: Path) -> None:
    many = 1 << 17
    weights = {"q": np.ones((many, 1), np.int8), "scale": np.ones((1, many), np.float32)}
    nodes = [node("DequantizeLinear", ["q", "scale"], ["w"], axis=1), PRODUCT]
    (row,) = inspect_onnx(save(tmp_path / "m.onnx", nodes, weights), P24).layers
    assert "unproven" in row.note


def test_a_pointer_of_git_lfs(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(SourceError, match="Git LFS"):
        inspect_onnx(tmp_path / "m.onnx", P24)


def test_hostile_names_stay_what_they_are(tmp_path: Path) -> None:
    metadata = {LAYER_MAP_KEY: json.dumps({"\x1b[31mred": ["p"]})}
    product = node("MatMul", ["x", "w"], ["y"], name="p")
    (row,) = inspect_onnx(save(tmp_path / "m.onnx", [product], {"w": GOOD}, metadata=metadata), P24).layers
    assert row.name == "\x1b[31mred"  # the terminal shows it otherwise
