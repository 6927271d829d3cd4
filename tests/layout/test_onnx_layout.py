"""The checker against the rule written as loops, on products of every form and on chains between weight and product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from snowsdeploy.errors import LayoutError, SourceError
from snowsdeploy.layout.onnx_layout import LAYER_MAP_KEY, check_onnx, graph_nodes, inspect_onnx
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.values import LayerSparsity, SparsityEvidence
from tests.layout.graphs import initializer, node, save, two_four
from tests.layout.oracle import conv_violations, matmul_violations
from tests.layout.strategies import patterns, relaxed, weights

P24 = Pattern(2, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


def only(evidence: SparsityEvidence) -> LayerSparsity:
    (row,) = evidence.layers
    return row


# --- products ---------------------------------------------------------------------------------------------------------


@relaxed
@given(data=st.data(), pattern=patterns)
def test_convolutions(folder: Path, data: st.DataObject, pattern: Pattern) -> None:
    weight = data.draw(weights(pattern.m, ((1,), (3,), (1, 1), (1, 3), (3, 3))))
    path = save(folder / "conv.onnx", [node("Conv", ["x", "layer.weight"], ["y"])], {"layer.weight": weight})
    row = only(inspect_onnx(path, pattern))
    groups, violations = conv_violations(weight, pattern.n, pattern.m)
    assert (row.name, row.tensor, row.op) == ("layer", "layer.weight", "Conv")
    assert (row.shape, row.axis) == (weight.shape, 1)
    assert (row.groups, row.violations, row.layout_valid) == (groups, violations, violations == 0)
    assert row.zeros == pytest.approx(np.mean(weight == 0))


@relaxed
@given(data=st.data(), pattern=patterns, left=st.booleans(), transposed=st.booleans())
def test_gemm(folder: Path, data: st.DataObject, pattern: Pattern, left: bool, transposed: bool) -> None:
    matrix = data.draw(weights(pattern.m, ((),)))  # [N, K]: reduction along axis 1
    right = np.ascontiguousarray(matrix.T)
    if left:  # y = W x: W is [N, K], or [K, N] with transA
        stored, axis = (right, 0) if transposed else (matrix, 1)
        product = node("Gemm", ["w", "x"], ["y"], transA=int(transposed))
    else:  # y = x W: W is [K, N], or [N, K] with transB
        stored, axis = (matrix, 1) if transposed else (right, 0)
        product = node("Gemm", ["x", "w", "b"], ["y"], transB=int(transposed))
    path = save(folder / "gemm.onnx", [product], {"w": stored, "b": np.ones(matrix.shape[0], np.float32)})
    row = only(inspect_onnx(path, pattern))
    groups, violations = matmul_violations(right, pattern.n, pattern.m)
    assert (row.axis, row.groups, row.violations) == (axis, groups, violations)


@relaxed
@given(data=st.data(), pattern=patterns, left=st.booleans(), batch=st.integers(0, 2))
def test_matmul(folder: Path, data: st.DataObject, pattern: Pattern, left: bool, batch: int) -> None:
    matrices = [data.draw(weights(pattern.m, ((),))).T for _ in range(max(batch, 1))]
    shape = min(m.shape for m in matrices)
    rows, columns = shape[0] - shape[0] % pattern.m, min(m.shape[1] for m in matrices)
    right = np.stack([m[:rows, :columns] for m in matrices]) if batch else matrices[0]  # [(batch), K, N]
    stored = np.ascontiguousarray(np.swapaxes(right, -1, -2) if left else right)
    product = node("MatMul", ["w", "x"] if left else ["x", "w"], ["y"])
    row = only(inspect_onnx(save(folder / "matmul.onnx", [product], {"w": stored}), pattern))
    groups, violations = matmul_violations(right, pattern.n, pattern.m)
    assert row.axis == stored.ndim - (1 if left else 2)
    assert (row.groups, row.violations, row.layout_valid) == (groups, violations, violations == 0)


def test_the_wrong_axis_does_not_pass(tmp_path: Path) -> None:
    """A linear weight sparse along axis 1 is right for Gemm with transB and wrong for MatMul."""
    weight = two_four((8, 8), axis=1)
    right = save(tmp_path / "a.onnx", [node("Gemm", ["x", "w"], ["y"], transB=1)], {"w": weight})
    wrong = save(tmp_path / "b.onnx", [node("MatMul", ["x", "w"], ["y"])], {"w": weight})
    assert only(inspect_onnx(right, P24)).layout_valid
    assert not only(inspect_onnx(wrong, P24)).layout_valid
    assert matmul_violations(weight, 2, 4)[1] == only(inspect_onnx(wrong, P24)).violations


def test_channels_that_do_not_divide_are_not_valid(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", [node("Conv", ["x", "w"], ["y"])], {"w": np.zeros((8, 3, 3, 3), np.float32)})
    row = only(inspect_onnx(path, P24))
    assert (row.groups, row.layout_valid) == (0, False)
    assert "3 values" in row.note


def test_grouped_convolution_is_noted(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", [node("Conv", ["x", "w"], ["y"], group=2)], {"w": two_four((8, 4, 3, 3), 1)})
    row = only(inspect_onnx(path, P24))
    assert row.layout_valid
    assert row.note == "grouped convolution (2 groups)"


@pytest.mark.parametrize(
    ("product", "weight", "note"),
    [
        (node("ConvTranspose", ["x", "w"], ["y"]), np.zeros((8, 8, 3, 3), np.float32), "transposed convolution"),
        (node("MatMulInteger", ["x", "w"], ["y"]), np.zeros((8, 8), np.int8), "integer operator"),
        (node("Einsum", ["x", "w"], ["y"], equation="ij,jk->ik"), np.zeros((8, 8), np.float32), "Einsum"),
        (
            node("Conv", ["x", "w"], ["y"], domain="com.microsoft.nchwc"),
            np.zeros((8, 8, 3, 3), np.float32),
            "com.microsoft.nchwc",
        ),
    ],
)
def test_weights_outside_the_rule_count_as_not_covered(
    tmp_path: Path, product: onnx.NodeProto, weight: np.ndarray, note: str
) -> None:
    path = save(tmp_path / "a.onnx", [product], {"w": weight}, domains=["com.microsoft.nchwc"])
    evidence = inspect_onnx(path, P24)
    row = only(evidence)
    assert not row.layout_valid
    assert note in row.note
    assert row.zeros == 1
    assert (evidence.weights_covered, evidence.weights_total) == (0, weight.size)
    with pytest.raises(LayoutError, match=r"does not hold 2:4") as caught:
        check_onnx(path, P24, ["w"])
    assert note in str(caught.value.seen)


def test_products_of_data_and_vectors_are_no_layers(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0]),
        node("MatMul", ["x", "t"], ["a"]),
        node("MatMul", ["a", "vector"], ["y"]),
    ]
    evidence = inspect_onnx(save(tmp_path / "a.onnx", nodes, {"vector": np.ones(4, np.float32)}), P24)
    assert evidence.layers == ()
    assert (evidence.coverage, evidence.weights_total) == (0.0, 0)


# --- chains between the stored weight and the product -----------------------------------------------------------------


def test_transposes_casts_and_identities_are_followed(tmp_path: Path) -> None:
    """Stored [C, R, S, K] in FP16; the product sees [K, C, R, S] in FP32."""
    seen = two_four((6, 8, 3, 1), axis=1)
    stored = np.ascontiguousarray(seen.transpose(1, 2, 3, 0)).astype(np.float16)
    nodes = [
        node("Identity", ["w"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[3, 0, 1, 2]),
        node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
        node("Identity", ["c"], ["d"]),
        node("Conv", ["x", "d"], ["y"]),
    ]
    row = only(inspect_onnx(save(tmp_path / "a.onnx", nodes, {"w": stored}), P24))
    assert row.layout_valid
    assert (row.tensor, row.shape, row.axis) == ("w", stored.shape, 0)
    stored[:] = 1
    row = only(inspect_onnx(save(tmp_path / "b.onnx", nodes, {"w": stored}), P24))
    assert (row.groups, row.violations) == (6 * 2 * 3, 6 * 2 * 3)


def test_a_transpose_without_perm_reverses_the_axes(tmp_path: Path) -> None:
    nodes = [node("Transpose", ["w"], ["t"]), node("MatMul", ["x", "t"], ["y"])]
    row = only(inspect_onnx(save(tmp_path / "a.onnx", nodes, {"w": two_four((5, 8), axis=1)}), P24))
    assert (row.layout_valid, row.axis, row.groups) == (True, 1, 10)


def test_a_constant_node_is_a_weight(tmp_path: Path) -> None:
    constant = node("Constant", [], ["c"], value=initializer("value", two_four((8, 5), axis=0)))
    row = only(inspect_onnx(save(tmp_path / "a.onnx", [constant, node("MatMul", ["x", "c"], ["y"])], {}), P24))
    assert (row.name, row.layout_valid, row.axis) == ("c", True, 0)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Reshape", ["w", "shape"], ["r"])],
        [node("Constant", [], ["s"], value_ints=[6, 8, 1, 1]), node("Reshape", ["w", "s"], ["r"])],
        [node("Unsqueeze", ["w", "axes"], ["r"])],
    ],
)
def test_a_reshaped_weight_is_judged_by_what_the_product_sees(tmp_path: Path, nodes: list[onnx.NodeProto]) -> None:
    nodes = [*nodes, node("Conv", ["x", "r"], ["y"])]
    shapes = {"shape": np.array([6, 8, 1, 1]), "axes": np.array([2, 3])}
    row = only(inspect_onnx(save(tmp_path / "a.onnx", nodes, {"w": two_four((6, 8), axis=1), **shapes}), P24))
    assert (row.tensor, row.shape, row.axis) == ("w", (6, 8, 1, 1), 1)
    assert row.layout_valid
    dense = {"w": np.ones((6, 8), np.float32), **shapes}
    assert only(inspect_onnx(save(tmp_path / "b.onnx", nodes, dense), P24)).violations == 12


def test_a_computed_weight_is_listed_but_not_proven(tmp_path: Path) -> None:
    nodes = [node("Mul", ["w", "scale"], ["m"]), node("MatMul", ["x", "m"], ["y"])]
    path = save(tmp_path / "a.onnx", nodes, {"w": two_four((8, 8), axis=0), "scale": np.float32(2)})
    evidence = inspect_onnx(path, P24)
    assert not only(evidence).layout_valid
    assert "computed in the file by Mul" in only(evidence).note
    assert evidence.weights_total == 64


def test_a_product_of_constants_is_not_a_layer(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["a", "b"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    matrices = {"a": np.zeros((8, 4), np.float32), "b": np.zeros((4, 8), np.float32)}
    row = only(inspect_onnx(save(tmp_path / "a.onnx", nodes, matrices), P24))
    assert "computed in the file by MatMul" in row.note


# --- quantisation -----------------------------------------------------------------------------------------------------


def quantised(
    tmp_path: Path, stored: np.ndarray | TensorProto, zero: np.ndarray | TensorProto, **attributes: int
) -> Path:
    """x -> Conv with a weight behind DequantizeLinear."""
    points = zero.dims if isinstance(zero, TensorProto) else zero.shape
    nodes = [
        node("DequantizeLinear", ["w", "scale", "zero"], ["d"], **attributes),
        node("Conv", ["x", "d"], ["y"]),
    ]
    scale = np.full(tuple(points), 0.1, np.float32)
    return save(tmp_path / "q.onnx", nodes, {"w": stored, "scale": scale, "zero": zero})


@pytest.mark.parametrize("point", [0, 3, 128])
def test_the_zero_point_means_zero(tmp_path: Path, point: int) -> None:
    pruned = two_four((4, 8, 3, 3), axis=1)
    stored = np.where(pruned == 0, point, point + 1).astype(np.uint8)
    row = only(inspect_onnx(quantised(tmp_path, stored, np.uint8(point)), P24))
    assert row.layout_valid
    assert row.zeros == 0.5
    if point:
        assert not only(inspect_onnx(quantised(tmp_path, stored, np.uint8(0)), P24)).layout_valid


def test_zero_points_per_output_channel(tmp_path: Path) -> None:
    pruned = two_four((4, 8, 1, 1), axis=1)
    points = np.array([0, 7, 128, 255], np.uint8)
    stored = np.where(pruned == 0, points[:, None, None, None], 100).astype(np.uint8)
    assert only(inspect_onnx(quantised(tmp_path, stored, points, axis=0), P24)).layout_valid
    assert only(inspect_onnx(quantised(tmp_path, stored, points[::-1].copy(), axis=0), P24)).violations > 0


def test_a_transpose_below_the_dequantisation_keeps_its_axis(tmp_path: Path) -> None:
    """The axis attribute counts in the transposed value, not in the stored one."""
    pruned = two_four((4, 8), axis=1)
    points = np.array([1, 2, 3, 4], np.int8)
    stored = np.ascontiguousarray(np.where(pruned == 0, points[:, None], 50).T).astype(np.int8)
    nodes = [
        node("Transpose", ["w"], ["t"], perm=[1, 0]),
        node("DequantizeLinear", ["t", "scale", "zero"], ["d"], axis=0),
        node("Gemm", ["x", "d"], ["y"], transB=1),
    ]
    path = save(tmp_path / "a.onnx", nodes, {"w": stored, "scale": np.ones(4, np.float32), "zero": points})
    assert only(inspect_onnx(path, P24)).layout_valid
    assert only(inspect_onnx(path, P24)).axis == 0


@pytest.mark.parametrize("second", [0, 5])
def test_quantise_then_dequantise_a_float_weight(tmp_path: Path, second: int) -> None:
    """Small weights are weights: only what quantises to the zero point is zero."""
    nodes = [
        node("QuantizeLinear", ["w", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "second"], ["d"]),
        node("MatMul", ["x", "d"], ["y"]),
    ]

    def row(weight: np.ndarray) -> LayerSparsity:
        values = {"w": weight, "scale": np.float32(0.01), "zero": np.int8(0), "second": np.int8(second)}
        return only(inspect_onnx(save(tmp_path / "a.onnx", nodes, values), P24))

    assert row(0.5 * two_four((8, 8), axis=0)).layout_valid == (second == 0)
    dense = row(np.full((8, 8), 0.3, np.float32))
    assert dense.violations == dense.groups == 16


@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2, TensorProto.INT4, TensorProto.UINT4]
)
def test_eight_and_four_bit_types(tmp_path: Path, kind: int) -> None:
    """0.5 in an 8-bit float is not zero, whatever an integer cast makes of it."""
    value = 0.5 if kind in (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2) else 1
    zero = helper.make_tensor("zero", kind, [], [0])
    pruned = np.where(two_four((4, 8, 1, 1), axis=1) == 0, 0, value)
    stored = helper.make_tensor("w", kind, pruned.shape, pruned.flatten())
    assert only(inspect_onnx(quantised(tmp_path, stored, zero), P24)).layout_valid
    stored = helper.make_tensor("w", kind, pruned.shape, np.full(pruned.size, value))
    row = only(inspect_onnx(quantised(tmp_path, stored, zero), P24))
    assert row.violations == row.groups == 8


# --- whole files ------------------------------------------------------------------------------------------------------


def two_layers(path: Path, first: np.ndarray, second: np.ndarray, metadata: dict[str, str] | None = None) -> Path:
    nodes = [node("MatMul", ["x", "a.weight"], ["h"], name="n1"), node("MatMul", ["h", "b.weight"], ["y"], name="n2")]
    return save(path, nodes, {"a.weight": first, "b.weight": second}, metadata=metadata)


def test_check_returns_the_evidence(tmp_path: Path) -> None:
    path = two_layers(tmp_path / "a.onnx", two_four((8, 8), 0), np.ones((8, 4), np.float32))
    evidence = check_onnx(path, P24, ["a"])
    assert evidence.expected == ("a",)
    assert evidence.file == path
    assert (evidence.weights_covered, evidence.weights_total) == (64, 96)
    assert evidence.coverage == pytest.approx(64 / 96)
    assert SparsityEvidence.model_validate_json(evidence.model_dump_json()) == evidence


def test_check_names_every_missing_and_every_broken_layer(tmp_path: Path) -> None:
    dense = np.ones((8, 8), np.float32)
    path = two_layers(tmp_path / "a.onnx", dense, dense)
    with pytest.raises(LayoutError) as caught:
        check_onnx(path, P24, ["a", "b", "lost", "gone"])
    text = str(caught.value)
    assert "missing: lost, gone" in text
    assert "a (16 of 16 groups)" in text
    assert "b (16 of 16 groups)" in text
    assert str(path) in text


def test_one_violated_group_is_enough(tmp_path: Path) -> None:
    weight = two_four((64, 64), 0)
    weight[weight == 0] = np.where(np.arange((weight == 0).sum()) == 700, 1e-30, 0)
    with pytest.raises(LayoutError, match="does not hold") as caught:
        check_onnx(two_layers(tmp_path / "a.onnx", weight, two_four((64, 8), 0)), P24, ["a", "b"])
    assert "a (1 of 1024 groups)" in str(caught.value.seen)
    assert "b (" not in str(caught.value.seen)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_shared_weight_is_covered_when_every_use_is(tmp_path: Path, axis: int) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Gemm", ["h", "w"], ["y"], transB=1)]
    evidence = inspect_onnx(save(tmp_path / "a.onnx", nodes, {"w": two_four((8, 8), axis)}), P24)
    assert [row.layout_valid for row in evidence.layers] == [axis == 0, axis == 1]
    assert (evidence.weights_covered, evidence.weights_total) == (0, 64)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_weight_with_one_broken_use_is_refused_whichever_use_it_is(tmp_path: Path, axis: int) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"], name="n1"), node("Gemm", ["h", "w"], ["y"], name="n2", transB=1)]
    path = save(tmp_path / "a.onnx", nodes, {"w": two_four((8, 8), axis)})
    broken = [row for row in inspect_onnx(path, P24).layers if not row.layout_valid]
    assert len(broken) == 1
    with pytest.raises(LayoutError, match="does not hold") as caught:
        check_onnx(path, P24, ["w"])
    assert f"w ({broken[0].violations} of 16 groups)" in str(caught.value.seen)
    assert graph_nodes(path).products == {"w": ("n1", "n2")}


def test_names_come_from_our_metadata(tmp_path: Path) -> None:
    mapped = {LAYER_MAP_KEY: '{"block.fc": ["n1"], "twin": ["n1"], "attn.in_proj_weight": ["n2"]}'}
    path = two_layers(tmp_path / "a.onnx", two_four((8, 8), 0), two_four((8, 8), 0), mapped)
    evidence = check_onnx(path, P24, ["block.fc", "twin", "attn.in_proj_weight"])
    assert [row.name for row in evidence.layers] == ["block.fc", "twin", "attn.in_proj_weight"]
    assert evidence.weights_total == 128


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 3}', "null"])
def test_damaged_names_are_an_error(tmp_path: Path, text: str) -> None:
    path = two_layers(tmp_path / "a.onnx", two_four((8, 8), 0), two_four((8, 8), 0), {LAYER_MAP_KEY: text})
    with pytest.raises(LayoutError, match="damaged"):
        inspect_onnx(path, P24)


def test_external_data_is_read_and_its_absence_named(tmp_path: Path) -> None:
    model = onnx.load(two_layers(tmp_path / "inline.onnx", two_four((8, 8), 0), np.ones((8, 8), np.float32)))
    path = tmp_path / "a.onnx"
    onnx.save(model, path, save_as_external_data=True, location="a.data", size_threshold=0)
    assert b"a.data" in path.read_bytes()
    assert [row.layout_valid for row in inspect_onnx(path, P24).layers] == [True, False]
    (tmp_path / "a.data").unlink()
    with pytest.raises(SourceError, match="external data") as caught:
        inspect_onnx(path, P24)
    assert "a.data" in str(caught.value.seen)


@pytest.mark.parametrize("content", [b"", b"not an ONNX file at all", None])
def test_files_that_are_not_onnx(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match="does not exist" if content is None else "cannot be read as ONNX") as caught:
        inspect_onnx(path, P24)
    assert str(path) in str(caught.value.seen)


def test_a_truncated_file(tmp_path: Path) -> None:
    path = two_layers(tmp_path / "a.onnx", two_four((64, 64), 0), two_four((64, 64), 0))
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(SourceError, match="cannot be read as ONNX"):
        inspect_onnx(path, P24)


def test_sparse_tensors_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    model = onnx.load(save(path, [node("MatMul", ["x", "w"], ["y"])], {}))
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    indices = helper.make_tensor("indices", TensorProto.INT64, [2], [0, 3])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 4]))
    onnx.save(model, path)
    with pytest.raises(LayoutError, match="sparse tensors") as caught:
        inspect_onnx(path, P24)
    assert caught.value.seen == "w"


def test_functions_are_looked_into(tmp_path: Path) -> None:
    body = [node("Transpose", ["weight"], ["t"], perm=[1, 0]), node("MatMul", ["data", "t"], ["result"])]
    linear = helper.make_function(
        "local", "Linear", ["data", "weight"], ["result"], body, [helper.make_opsetid("", 21)]
    )
    call = node("Linear", ["x", "fc.weight"], ["y"], domain="local")
    weight = {"fc.weight": two_four((6, 8), axis=1)}
    path = save(tmp_path / "a.onnx", [call], weight, functions=[linear], domains=["local"])
    row = only(check_onnx(path, P24, ["fc"]))
    assert (row.op, row.axis, row.groups) == ("MatMul", 1, 12)


def test_subgraphs_are_looked_into(tmp_path: Path) -> None:
    """A branch uses a weight of the outer graph and one of its own."""
    branch = helper.make_graph(
        [node("MatMul", ["x", "outer"], ["h"]), node("MatMul", ["h", "inner"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [initializer("inner", np.ones((8, 8), np.float32))],
    )
    choose = node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
    weights_ = {"flag": np.array(True), "outer": two_four((8, 8), axis=0)}
    rows = inspect_onnx(save(tmp_path / "a.onnx", [choose], weights_), P24).layers
    assert [(row.name, row.layout_valid) for row in rows] == [("outer", True), ("inner", False)] * 2


def test_a_layer_is_held_to_its_own_share_of_zeros(tmp_path: Path) -> None:
    rows = np.ones((8, 8), np.float32)
    rows[:, :4] = 0
    path = two_layers(tmp_path / "m.onnx", rows, rows * 0)
    pattern, names = (
        Pattern.parse("75%"),
        [layer.name for layer in inspect_onnx(tmp_path / "m.onnx", Pattern(2, 4)).layers],
    )
    with pytest.raises(LayoutError, match="75%"):
        check_onnx(path, pattern, names)
    assert check_onnx(path, pattern, names, dict(zip(names, (0.5, 1.0), strict=True))).coverage == 1
    with pytest.raises(LayoutError, match="75%"):
        check_onnx(path, pattern, names, dict(zip(names, (0.6, 1.0), strict=True)))
