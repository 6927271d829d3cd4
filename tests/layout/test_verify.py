"""A report stands for its files alone: their digests, their layout, and nothing that was edited."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from snowsdeploy.errors import OutputError
from snowsdeploy.layout.onnx_layout import LAYER_MAP_KEY, inspect_onnx
from snowsdeploy.layout.verify import verify_files
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.report.store import read_report, write_report
from snowsdeploy.values import OnnxArtifact, Report
from tests.sample_report import NAMES, make_report, with_variant

P24 = Pattern(2, 4)


def write_model(path: Path, *, sparse: bool, seed: int = 0) -> OnnxArtifact:
    """Two Gemm with the layer names of the sample report; the weights of a sparse one hold 2:4."""
    rng = np.random.default_rng(seed)
    nodes, weights, value = [], [], "input"
    for number in range(2):
        weight = rng.normal(size=(8, 8)).astype(np.float32)
        if sparse:
            weight[:, [0, 1, 4, 5]] = 0
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
        inputs, value = [value, f"w{number}"], "output" if number else "between"
        nodes.append(helper.make_node("Gemm", inputs, [value], f"node{number}", transB=1))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in ("input", value)]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], weights))
    layers = {name: [f"node{number}"] for number, name in enumerate(NAMES)}
    model.metadata_props.add(key=LAYER_MAP_KEY, value=json.dumps(layers))
    onnx.save(model, path)
    role = "sparse" if sparse else "dense"
    evidence = inspect_onnx(path, P24)
    names = {"input_names": ["input"], "output_names": ["output"]}
    numbers = {"sha256": evidence.sha256, "size_bytes": path.stat().st_size, "opset": 20}
    return OnnxArtifact.model_validate({"path": path, "role": role, **numbers, **names})


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """A report of two files that are there."""
    dense, sparse = write_model(tmp_path / "dense.onnx", sparse=False), write_model(tmp_path / "m.onnx", sparse=True)
    evidence = inspect_onnx(sparse.path, P24).model_copy(update={"expected": NAMES})
    found = with_variant(make_report(), dense=dense, sparse=sparse, sparsity=evidence)
    write_report(found, tmp_path / "report.json")
    return read_report(tmp_path / "report.json")


def reason(report: Report, folder: Path | None = None) -> str:
    (row,) = verify_files(report, folder)
    assert (row.verdict == "pass") == (row.reason == "")
    return row.reason


def test_untouched_files_pass_where_they_are_and_where_they_were_moved(report: Report, tmp_path: Path) -> None:
    assert reason(report) == ""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("dense.onnx", "m.onnx"):
        (tmp_path / name).rename(elsewhere / name)
    assert "dense.onnx is missing: pass --files" in reason(report)
    assert reason(report, elsewhere) == ""


@pytest.mark.parametrize("name", ["dense.onnx", "m.onnx"])
def test_another_file_under_the_name_fails(report: Report, tmp_path: Path, name: str) -> None:
    write_model(tmp_path / name, sparse=name == "m.onnx", seed=1)  # it holds the pattern too
    assert f"{name} has sha256" in reason(report)


def test_a_changed_bit_and_a_cut_file_fail(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    content = path.read_bytes()
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[:-9], b""):
        path.write_bytes(damaged)
        assert "m.onnx has sha256" in reason(report)


def test_a_report_that_was_edited_together_with_its_digests_fails_by_the_layout(report: Report) -> None:
    variant = report.variants[0]
    evidence = variant.sparsity
    assert evidence is not None
    # what is dense claims to be sparse: roles and digests are exchanged, the evidence is left
    swapped = variant.dense.model_copy(update={"role": "sparse"}), variant.sparse.model_copy(update={"role": "dense"})
    told = evidence.model_copy(update={"sha256": swapped[0].sha256, "file": swapped[0].path})
    forged = with_variant(report, sparse=swapped[0], dense=swapped[1], sparsity=told)
    assert f"the layout in {swapped[0].path} is another than the report's: {NAMES[0]}" in reason(forged)


@pytest.mark.parametrize(
    "change", [{"zeros": 0.75}, {"name": "other"}, {"tensor": "other"}, {"shape": (4, 16)}, {"op": "Conv"}]
)
def test_a_layer_that_the_file_has_otherwise_fails(report: Report, change: dict[str, object]) -> None:
    evidence = report.variants[0].sparsity
    assert evidence is not None
    layers = (evidence.layers[0].model_copy(update=change), *evidence.layers[1:])
    assert "is another than the report's" in reason(
        with_variant(report, sparsity=evidence.model_copy(update={"layers": layers}))
    )
    fewer = with_variant(report, sparsity=evidence.model_copy(update={"layers": evidence.layers[1:]}))
    assert NAMES[0] in reason(fewer)


def test_a_wrong_size_fails(report: Report) -> None:
    smaller = report.variants[0].sparse.model_copy(update={"size_bytes": 1})
    assert "bytes, the report says 1" in reason(with_variant(report, sparse=smaller))


def test_files_with_ends_in_the_graph_have_a_row(report: Report, tmp_path: Path) -> None:
    serving = write_model(tmp_path / "serving.onnx", sparse=True)
    both = report.model_copy(update={"serving": (serving,)})
    assert [(row.rule, row.verdict) for row in verify_files(both)] == [("files", "pass"), ("files, serving", "pass")]
    (tmp_path / "serving.onnx").write_bytes(b"x")
    assert [row.verdict for row in verify_files(both)] == ["pass", "fail"]


def test_what_is_no_file_cannot_be_read(report: Report, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").unlink()
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(OutputError, match="cannot be read"):
        verify_files(report)
    (tmp_path / "m.onnx").rmdir()
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(OutputError, match="cannot be read"):
        verify_files(report)
