"""Where a file leaves its program: defects that are injected into one node are found at that node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper
from torch import nn

from snowsdeploy.diagnose.bisection import first_divergent, kind_of, most_added
from snowsdeploy.diagnose.divergence import Comparison, difference
from snowsdeploy.diagnose.intermediates import file_values
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.settings.runtime import RuntimeSettings
from snowsdeploy.values import ValueDifference
from snowsdeploy_exporters import OnnxExporter
from snowsdeploy_exporters.precision.fp16 import to_fp16
from snowsdeploy_exporters.precision.int8 import to_int8
from tests.exporters.nets import images
from tests.nets import NETS, make_program

BATCH = images(4)


def exported(program: Program, folder: Path) -> ModelProto:
    return onnx.load(OnnxExporter().export(program, folder / "model.onnx", "sparse", {}).path)


def compare(program: Program, model: ModelProto, fp32: ModelProto | None = None) -> Comparison:
    references = file_values(fp32, RuntimeSettings(), BATCH.numpy()) if fp32 is not None else {}
    found = file_values(model, RuntimeSettings(), BATCH.numpy())
    return Comparison(model, found, ProgramGraph(program), BATCH, references)


def first(program: Program, model: ModelProto, tolerance: float = 1e-4) -> ValueDifference:
    found = first_divergent(tuple(compare(program, model).rows()), tolerance)
    assert found is not None
    return found


def node_of(model: ModelProto, operator: str, index: int = 0) -> onnx.NodeProto:
    return [n for n in model.graph.node if n.op_type == operator][index]


def change(model: ModelProto, name: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor).copy()), name))


def test_a_sound_file_agrees_everywhere(tiny: Program, tmp_path: Path) -> None:
    comparison = compare(tiny, exported(tiny, tmp_path))
    rows = tuple(comparison.rows())
    assert max(row.relative_l2 for row in rows) < 1e-5
    assert all(row.added is not None and row.added < 1e-5 for row in rows)
    assert first_divergent(rows, 1e-4) is None
    assert 0.4 < comparison.compared <= 1
    assert len({node for row in rows for node in row.nodes}) > 0.8 * len(comparison.model.graph.node)


@pytest.mark.parametrize("name", NETS)
def test_a_changed_weight_is_found_at_its_product_wherever_it_is(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = make_program(NETS[name]())
    sound = exported(program, tmp_path)
    initializers = {t.name for t in sound.graph.initializer}
    products = [n for n in sound.graph.node if n.op_type in ("Conv", "Gemm", "MatMul") and n.input[1] in initializers]
    shared = {n.input[1] for n in products if sum(n.input[1] == o.input[1] for o in products) > 1}
    assert len(products) >= 5
    for product in products:
        model = ModelProto()
        model.CopyFrom(sound)
        change(model, product.input[1], lambda w: w * 1.5)
        found = first(program, model)
        users = [n.name for n in products if n.input[1] == product.input[1]]
        assert found.node == users[0]
        assert found.layers
        assert found.error_in < 1e-5
        assert found.added == pytest.approx(found.relative_l2, rel=1e-3)
    assert bool(shared) == (name == "cnn")  # a module used twice is named where it is used first


def test_a_changed_epsilon_is_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = make_program(NETS["attention"]())
    model = exported(program, tmp_path)
    norm = node_of(model, "LayerNormalization", 1)
    next(a for a in norm.attribute if a.name == "epsilon").f = 0.3
    found = first(program, model)
    assert (found.node, found.operator) == (norm.name, "LayerNormalization")


@pytest.mark.parametrize("swap", [(0, 1), (1, 2)])
def test_a_changed_order_of_axes_is_found_even_where_the_file_no_longer_runs(
    swap: tuple[int, int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    program = make_program(NETS["attention"]())
    model = exported(program, tmp_path)
    transpose = next(n for n in model.graph.node if n.op_type == "Transpose" and len(n.attribute[0].ints) == 5)
    order = list(transpose.attribute[0].ints)
    a, b = swap
    order[a], order[b] = order[b], order[a]
    transpose.attribute[0].ints[:] = order
    found = first(program, model)
    assert found.node == transpose.name
    assert found.relative_l2 > 0.1


class Overflowing(nn.Module):
    """A product whose values leave the range of FP16; a tanh behind it keeps the output finite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.large, self.small = (nn.Conv2d(c, 8, 3, padding=1) for c in (3, 8, 8))
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            self.large.weight.mul_(5e5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.small(self.large(self.stem(x).relu()).tanh()).mean((2, 3)))


def test_an_overflow_in_fp16_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snowsdeploy_exporters.precision.fp16.MARGIN", 0.0)  # else the node stays in FP32
    torch.manual_seed(0)
    program = make_program(Overflowing())
    fp32 = exported(program, tmp_path)
    half = to_fp16(fp32, [BATCH.numpy()])
    assert not half.kept
    rows = tuple(compare(program, half.model, fp32).rows())
    found = first_divergent(rows, 1e-2)
    assert found is not None
    assert found.relative_l2 == float("inf")
    assert found.layers == ("large",)
    assert kind_of(found, 1e-2, 0.0) == "diverges"
    assert rows[rows.index(found) + 1].added is None  # what comes from an Inf cannot be judged


def test_int8_is_compared_through_its_quantization_and_a_wrong_scale_is_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = make_program(NETS["attention"]())
    fp32 = exported(program, tmp_path)
    quantized = to_int8(fp32, [BATCH.numpy()])
    assert not quantized.kept
    comparison = compare(program, quantized.model, fp32)
    rows = tuple(comparison.rows())
    assert comparison.compared > 0.95
    assert first_divergent(rows, 0.2) is None
    assert any(row.error_in > 0 for row in rows if "qkv" in row.layers)
    worst = most_added(rows)
    assert [row.added for row in worst] == sorted((row.added for row in worst), reverse=True)
    product = next(
        n for n in quantized.model.graph.node if n.op_type == "MatMul" and "fc2" in layer_names(rows, n.name)
    )
    scale = next(
        n.input[1]
        for n in quantized.model.graph.node
        if n.op_type == "QuantizeLinear" and n.input[0] == product.output[0]
    )
    change(quantized.model, scale, lambda s: s * np.float32(0.05))
    found = first_divergent(tuple(compare(program, quantized.model, fp32).rows()), 0.2)
    assert found is not None
    assert found.layers == ("fc2",)


def layer_names(rows: tuple[ValueDifference, ...], node: str) -> set[str]:
    return {layer for row in rows if row.node == node for layer in row.layers}


def test_difference_tells_shapes_and_infinities_apart() -> None:
    x = np.array([3.0, 4.0], np.float32)
    assert difference(x, x) == (0.0, 0.0)
    assert difference(x * np.float32(1.1), x) == (pytest.approx(0.1), pytest.approx(0.4))
    assert difference(x[:1], x)[0] == float("inf")
    masked = np.array([-np.inf, 4.0], np.float32)
    assert difference(masked, masked) == (0.0, 0.0)
    assert difference(masked, x)[0] == float("inf")
    assert difference(x, masked)[0] == float("inf")


def test_smooth_growth_is_told_from_one_bad_node() -> None:
    def row(name: str, error_in: float, added: float, error: float) -> ValueDifference:
        return ValueDifference(
            value=name,
            operator="Conv",
            node=name,
            nodes=(name,),
            reference="torch",
            relative_l2=error,
            max_abs=error,
            error_in=error_in,
            added=added,
        )

    smooth = (row("a", 0.0, 0.4, 0.4), row("b", 0.4, 0.3, 0.8), row("c", 0.8, 0.3, 1.1), row("d", 1.1, 0.3, 1.3))
    found = first_divergent(smooth, 1.0)
    assert found == smooth[2]
    assert kind_of(found, 1.0, 0.0) == "accumulates"
    assert [r.value for r in most_added(smooth, 1)] == ["a"]
    assert kind_of(row("x", 0.1, 0.9, 1.1), 1.0, 0.0) == "diverges"
    assert kind_of(None, 1.0, 2.0) == "rewriting"
    assert kind_of(None, 1.0, 0.5) == "agrees"
