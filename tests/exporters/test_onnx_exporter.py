"""Real exports of tiny nets, read back with onnx and ONNX Runtime."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from snowsdeploy.errors import ExportError, LayoutError
from snowsdeploy.layout.onnx_layout import LAYER_MAP_KEY, check_onnx, inspect_onnx, node_layers_of
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.values import OnnxArtifact
from snowsdeploy_exporters import OnnxExporter, onnx_exporter
from tests.exporters.nets import Ending, Equal, Folded, Twice, equal_weights, images, prune
from tests.nets import TinyAttention, TinyCNN, make_program

P24 = Pattern(2, 4)
NETS: dict[str, Callable[[], nn.Module]] = {
    "cnn": TinyCNN,
    "attention": lambda: TinyAttention(fused=False),
    "fused attention": lambda: TinyAttention(fused=True),
    "folded": Folded,
    "twice": Twice,
    "equal": Equal,
}


def program_of(name: str) -> Program:
    torch.manual_seed(0)
    program = make_program(NETS[name]())
    return equal_weights(program) if name == "equal" else program


def run_ort(path: Path, x: Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"input": x.numpy()}))


def assert_parity(path: Path, program: Program, size: int = 8) -> None:
    for batch in (1, 3):
        x = images(batch, size)
        expected = program.run(x)
        got = run_ort(path, x)
        assert len(got) == len(expected)
        for ours, theirs in zip(got, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-5)


def assert_silent(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """Neither printed nor logged where Python's last-resort handler would print it."""
    assert capfd.readouterr() == ("", "")
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.fixture(scope="module", params=NETS)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Program, list[str], OnnxArtifact]:
    """(pruned program, pruned layers, its export) of each net."""
    program, names = prune(program_of(request.param), P24)
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    return program, names, OnnxExporter().export(program, path, "sparse", {"pattern": "2:4", "source": "a test"})


Exported = tuple[Program, list[str], OnnxArtifact]


def test_every_pruned_layer_is_found_and_holds_the_pattern(exported: Exported) -> None:
    program, names, artifact = exported
    assert len(names) >= 2
    evidence = check_onnx(artifact.path, P24, names)
    assert {row.name for row in evidence.layers} >= set(names)
    mapped = json.loads(artifact_metadata(artifact)[LAYER_MAP_KEY])
    nodes = {n.name for n in onnx.load(artifact.path).graph.node}
    assert all(set(uses) <= nodes for uses in mapped.values())
    shapes = {row.name: sorted(row.shape) for row in evidence.layers}
    for name in names:
        assert shapes[name] == sorted(program.state_dict[f"{name}.weight"].shape)


def test_onnxruntime_agrees_with_torch(exported: Exported) -> None:
    program, _, artifact = exported
    assert_parity(artifact.path, program)


def test_one_file_with_dynamic_batch_and_plain_names(exported: Exported) -> None:
    _, _, artifact = exported
    assert [p.name for p in artifact.path.parent.iterdir()] == ["model.onnx"]
    graph = onnx.load(artifact.path, load_external_data=False).graph
    (image,) = graph.input
    assert (image.name,) == artifact.input_names == ("input",)
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", 3, 8, 8]
    (output,) = graph.output
    assert artifact.output_names == (output.name,) == ("output",)
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["batch", 5]
    infos = [*graph.input, *graph.output, *graph.value_info]
    symbols = {d.dim_param for v in infos for d in v.type.tensor_type.shape.dim if d.dim_param}
    assert {re.sub(r"\d+\*", "", s) for s in symbols} == {"batch"}


def test_no_traces_of_the_machine_are_shipped(exported: Exported) -> None:
    _, _, artifact = exported
    model = onnx.load(artifact.path)
    assert not model.graph.metadata_props
    assert not any(n.metadata_props or n.doc_string for n in model.graph.node)
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer]
    assert not any(v.metadata_props or v.doc_string for v in values)
    content = artifact.path.read_bytes()
    for text in ("site-packages", str(Path(__file__).parent), "stack_trace", "torch.nn.modules"):
        assert text.encode() not in content


def test_the_artifact_describes_the_file(exported: Exported) -> None:
    _, _, artifact = exported
    content = artifact.path.read_bytes()
    assert artifact.sha256 == sha256(content).hexdigest()
    assert artifact.size_bytes == len(content)
    assert (artifact.role, artifact.opset) == ("sparse", 20)
    model = onnx.load(artifact.path)
    assert {o.domain: o.version for o in model.opset_import} == {"": 20}
    assert (model.producer_name, model.producer_version) == ("snowsdeploy", "")
    metadata = artifact_metadata(artifact)
    assert metadata.pop(LAYER_MAP_KEY)
    assert metadata == artifact.metadata == {"pattern": "2:4", "source": "a test"}
    onnx.checker.check_model(model, full_check=True)


def test_polygraphy_finds_the_same_layout(exported: Exported) -> None:
    pytest.importorskip("polygraphy", reason="polygraphy is a development dependency")
    _, names, artifact = exported
    command = [sys.executable, "-c", "from polygraphy.tools import main; main()", "inspect", "sparsity"]
    done = subprocess.run([*command, str(artifact.path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    theirs = {tensor: word == "sparse" for word, tensor in re.findall(r"Found (\S+) tensor: (\S+)", done.stdout)}
    rows = inspect_onnx(artifact.path, P24).layers
    assert {row.tensor for row in rows if row.name in names} <= {t for t, sparse in theirs.items() if sparse}
    assert all(row.layout_valid == theirs[row.tensor] for row in rows if row.tensor in theirs)


def artifact_metadata(artifact: OnnxArtifact) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(artifact.path, load_external_data=False).metadata_props}


def test_the_dense_export_does_not_pass(tmp_path: Path) -> None:
    program = program_of("cnn")
    _, names = prune(program, P24)
    OnnxExporter().export(program, tmp_path / "dense.onnx", "dense", {})
    with pytest.raises(LayoutError) as caught:
        check_onnx(tmp_path / "dense.onnx", P24, names)
    assert all(f"{name} (" in str(caught.value.seen) for name in names)
    assert_parity(tmp_path / "dense.onnx", program)


def test_folding_a_normalisation_keeps_zeros_and_changes_the_rest(tmp_path: Path) -> None:
    program, _ = prune(program_of("folded"), P24)
    path = OnnxExporter().export(program, tmp_path / "m.onnx", "sparse", {}).path
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    ours = program.state_dict["strided.weight"].numpy()
    assert not np.allclose(stored["strided.weight"], ours)
    np.testing.assert_array_equal(stored["strided.weight"] == 0, ours == 0)
    assert "BatchNormalization" not in {n.op_type for n in onnx.load(path).graph.node}


def test_an_export_is_the_same_bytes_each_time_and_leaves_the_program_alone(tmp_path: Path) -> None:
    program, _ = prune(program_of("folded"), P24)
    before = {k: v.clone() for k, v in program.state_dict.items()}
    outputs = program.run(images(2))
    first, second = (OnnxExporter().export(program, tmp_path / f"{i}.onnx", "sparse", {"a": "b"}) for i in range(2))
    assert first.sha256 == second.sha256
    assert all(torch.equal(before[k], v) for k, v in program.state_dict.items())
    assert torch.equal(outputs[0], program.run(images(2))[0])


def test_bytes_do_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    script = (
        "import sys, torch; from pathlib import Path; from tests.nets import TinyCNN, make_program;"
        "from snowsdeploy_exporters import OnnxExporter; torch.manual_seed(0);"
        "print(OnnxExporter().export(make_program(TinyCNN()), Path(sys.argv[1]), 'dense', {'b': '1', 'a': '2'}).sha256)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", script, str(tmp_path / "there.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    here = OnnxExporter().export(program_of("cnn"), tmp_path / "here.onnx", "dense", {"a": "2", "b": "1"})
    assert done.stdout.strip() == here.sha256


def test_modules_called_twice_are_found_at_each_call(tmp_path: Path) -> None:
    program, names = prune(program_of("twice"), P24)
    rows = check_onnx(OnnxExporter().export(program, tmp_path / "m.onnx", "sparse", {}).path, P24, names).layers
    assert [row.name for row in rows] == ["stem", "conv", "conv", "mix", "mix", "mix", "fc"]


def test_layers_of_equal_weights_keep_their_names(tmp_path: Path) -> None:
    """The exporter merges equal initializers, and equal layers on one input into one node."""
    program, names = prune(program_of("equal"), P24)
    path = OnnxExporter().export(program, tmp_path / "m.onnx", "sparse", {}).path
    rows = check_onnx(path, P24, names).layers
    assert [r.name for r in rows] == ["stem", "first", "second", "left", "right", "up", "down", "fc"]
    assert len({r.tensor for r in rows}) < len(rows)
    assert sum(n.op_type == "Conv" for n in onnx.load(path).graph.node) == 4


@pytest.mark.parametrize(
    ("ending", "shapes"),
    [
        (lambda t: (t.mean((2, 3)), None), {"output": ["batch", 8]}),
        (
            lambda t: {"logits": t.mean((2, 3)), "rest": [t.shape[0], t.relu()]},
            {"logits": ["batch", 8], "rest_1": ["batch", 8, 8, 8]},
        ),
        (lambda t: (t.mean((2, 3)),) * 2, {"output_0": ["batch", 8], "output_1": ["batch", 8]}),
        (lambda t: t.reshape(-1, 4).mean(-1, keepdim=True), {"output": ["128*batch", 1]}),
    ],
    ids=["None", "nested, a size among them", "one value twice", "batch times something"],
)
def test_outputs(tmp_path: Path, ending: Callable[[Tensor], object], shapes: dict[str, list[str | int]]) -> None:
    program = make_program(Ending(ending))
    artifact = OnnxExporter().export(program, tmp_path / "m.onnx", "dense", {})
    outputs = onnx.load(artifact.path).graph.output
    assert artifact.output_names == tuple(shapes)
    assert {o.name: [d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim] for o in outputs} == shapes
    assert_parity(artifact.path, program)


@pytest.mark.parametrize("opset", [18, 21])
def test_other_operator_sets(tmp_path: Path, opset: int) -> None:
    program, names = prune(program_of("folded"), P24)
    artifact = OnnxExporter(opset).export(program, tmp_path / "m.onnx", "sparse", {})
    assert artifact.opset == onnx.load(artifact.path).opset_import[0].version == opset
    check_onnx(artifact.path, P24, names)
    assert_parity(artifact.path, program)


def test_an_operator_set_that_the_exporter_cannot_write(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It logs a failed conversion and returns another operator set; that must not be shipped as what was asked for."""
    with pytest.raises(ExportError, match="operator set") as caught:
        OnnxExporter(13).export(make_program(Ending(lambda t: t.mean((2, 3)))), tmp_path / "m.onnx", "dense", {})
    assert "13" in str(caught.value.seen)
    assert "--opset 18" in str(caught.value.fix)
    assert not list(tmp_path.iterdir())
    assert_silent(capfd, caplog)


@pytest.mark.parametrize(
    ("ending", "operator"),
    [
        (lambda t: torch.linalg.svdvals(t.mean(1)), "aten._linalg_svd.default"),
        (lambda t: torch.special.bessel_j0(t).mean((2, 3)), "bessel_j0"),
    ],
)
def test_an_operator_that_onnx_lacks_is_named(
    tmp_path: Path,
    ending: Callable[[Tensor], object],
    operator: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    program = make_program(Ending(ending))
    with pytest.raises(ExportError, match="cannot convert") as caught:
        OnnxExporter().export(program, tmp_path / "m.onnx", "dense", {})
    assert operator in str(caught.value.seen)
    assert "\n" not in str(caught.value.seen)
    assert "replace that operation" in str(caught.value.fix)
    assert not list(tmp_path.iterdir())
    assert_silent(capfd, caplog)


def test_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    OnnxExporter().export(program_of("twice"), tmp_path / "m.onnx", "dense", {})
    assert_silent(capfd, caplog)


def test_a_model_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_exporter, "PROTOBUF_LIMIT", 1000)
    with pytest.raises(ExportError, match="one ONNX file") as caught:
        OnnxExporter().export(program_of("cnn"), tmp_path / "m.onnx", "dense", {})
    assert "2 GiB" in str(caught.value.allowed)
    assert not list(tmp_path.iterdir())


def test_a_failed_check_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")

    def refuse(*_: object, **__: object) -> None:
        raise onnx.checker.ValidationError("bad node\nmore")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(ExportError, match="checker refuses") as caught:
        OnnxExporter().export(program_of("cnn"), path, "dense", {})
    assert caught.value.seen == "bad node"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


class Packed(nn.Module):
    """Projections that are parts of one tensor, and a normed convolution, under names in capitals."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.Conv = parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
        self.QKV, self.bias, self.out = nn.Parameter(torch.randn(24, 8)), nn.Parameter(torch.randn(24)), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv(x).flatten(2).mT
        parts = zip(self.QKV.chunk(3), self.bias.chunk(3), strict=True)
        q, k, v = (nn.functional.linear(x, weight, bias) for weight, bias in parts)
        return self.out((q @ k.mT).softmax(-1) @ v)


def test_folded_weights_are_found_under_their_names(tmp_path: Path) -> None:
    program = make_program(Packed())
    path = OnnxExporter().export(program, tmp_path / "model.onnx", "dense", {}).path
    found = {layer for layers in node_layers_of(path).values() for layer in layers}
    assert found == {layer.name for layer in ProgramGraph(program).layers.values()} == {
        "Conv", "QKV_0", "QKV_1", "QKV_2", "out"
    }  # fmt: skip
