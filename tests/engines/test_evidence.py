"""From the account of an engine to `found` and `chosen` of our layers."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from snowsdeploy.engines.account import captured_account, read_account
from snowsdeploy.engines.evidence import add_engine
from snowsdeploy.errors import SourceError
from snowsdeploy.layout.onnx_layout import LAYER_MAP_KEY, GraphNodes, graph_nodes, inspect_onnx
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.values import EngineEvidence, SparsityEvidence
from tests.engines import tensorrt_texts as texts
from tests.layout.graphs import node, save, two_four


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """conv1 -> relu1 -> conv2 -> add -> relu2 -> conv3 -> fc, of which conv3 is dense."""
    nodes = [
        node("Conv", ["x", "stage.a.weight"], ["c1"], name="conv1"),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "stage.b.weight"], ["c2"], name="conv2"),
        node("Add", ["c2", "r1"], ["a"], name="add"),
        node("Relu", ["a"], ["r2"], name="relu2"),
        node("Conv", ["r2", "stage.c.weight"], ["c3"], name="conv3"),
        node("MatMul", ["c3", "head"], ["y"], name="fc"),
    ]
    weights = {name: two_four((8, 8, 1, 1), 1) for name in ("stage.a.weight", "stage.b.weight")}
    weights |= {"stage.c.weight": abs(two_four((8, 8, 1, 1), 1)) + 1, "head": two_four((8, 8), 0)}
    layers = {f"stage.{letter}": [f"conv{i}"] for i, letter in enumerate("abc", 1)} | {"head": ["fc"]}
    return save(tmp_path / "model.onnx", nodes, weights, metadata={LAYER_MAP_KEY: json.dumps(layers)})


def evidence(file: Path, log: str | None = None, layers: str | None = None) -> tuple[SparsityEvidence, EngineEvidence]:
    paths = []
    for name, text in (("build.log", log), ("layers.json", layers)):
        paths.append(None if text is None else file.with_name(name))
        if text is not None:
            file.with_name(name).write_text(text, encoding="utf-8")
    return add_engine(inspect_onnx(file, Pattern(2, 4)), read_account(*paths))


def states(found: SparsityEvidence) -> dict[str, tuple[str, str]]:
    return {row.name: (row.found, row.chosen) for row in found.layers}


EXPECTED = {
    "stage.a": ("yes", "no"),
    "stage.b": ("yes", "yes"),
    "stage.c": ("unknown", "unknown"),  # dense: nothing was promised of it
    "head": ("yes", "no"),
}


def test_the_file_names_its_layers(file: Path) -> None:
    products = {"stage.a": ("conv1",), "stage.b": ("conv2",), "stage.c": ("conv3",), "head": ("fc",)}
    order = ("conv1", "relu1", "conv2", "add", "relu2", "conv3", "fc")
    assert graph_nodes(file) == GraphNodes(order, products)


@pytest.mark.parametrize(
    "log",
    [texts.TRTEXEC_10, texts.TRTEXEC_8, texts.ONNX_RUNTIME, texts.ONNX_RUNTIME_LOGGER_OF_A_PROGRAM, texts.WRAPPED],
)
def test_a_log_fills_the_layers_and_counts_them(file: Path, log: str) -> None:
    sparsity, engine = evidence(file, log)
    assert states(sparsity) == EXPECTED
    assert (engine.pruned, engine.eligible, engine.found, engine.chosen) == (3, 3, 3, 1)
    assert (engine.found_unknown, engine.chosen_unknown, engine.engine_layers, engine.notes) == (0, 0, None, ())
    (source,) = engine.sources
    assert (source.kind, source.path) == ("log", file.with_name("build.log"))
    assert source.sha256 == sha256(file.with_name("build.log").read_bytes()).hexdigest()


def test_text_that_was_captured_gives_the_same(file: Path) -> None:
    sparsity, engine = add_engine(inspect_onnx(file, Pattern(2, 4)), captured_account(texts.ONNX_RUNTIME))
    assert states(sparsity) == EXPECTED
    assert engine.sources[0].path is None


def test_the_inspector_knows_kernels_but_not_always_eligibility(file: Path) -> None:
    sparsity, engine = evidence(file, layers=texts.INSPECTOR)
    assert states(sparsity) == EXPECTED | {"head": ("unknown", "no")}
    assert (engine.found, engine.found_unknown, engine.chosen, engine.engine_layers) == (2, 1, 1, 4)


def test_both_together_know_everything(file: Path) -> None:
    sparsity, engine = evidence(file, texts.TRTEXEC_10, texts.INSPECTOR)
    assert states(sparsity) == EXPECTED
    assert [source.kind for source in engine.sources] == ["log", "layers"]
    assert engine.account == (
        "TensorRT found 3 of 3 pruned layers eligible and chose sparse kernels for 1. "
        "Eligible but not chosen is normal: the engine timed both kernels and kept the faster one."
    )


def test_the_inspector_has_the_word_on_the_choice(file: Path) -> None:
    layers = texts.INSPECTOR.replace(texts.SPARSE_KERNELS[0], texts.DENSE_KERNEL)
    sparsity, engine = evidence(file, texts.TRTEXEC_10, layers)
    assert states(sparsity)["stage.b"] == ("yes", "no")
    assert "disagree on 1 kernels" in engine.notes[0]


def test_only_expected_layers_are_filled_and_counted(file: Path) -> None:
    sparsity = inspect_onnx(file, Pattern(2, 4)).model_copy(update={"expected": ("stage.a", "stage.c")})
    filled, engine = add_engine(sparsity, captured_account(texts.TRTEXEC_10))
    unknown = ("unknown", "unknown")
    assert states(filled) == {"stage.a": ("yes", "no"), "stage.b": unknown, "stage.c": ("no", "no"), "head": unknown}
    assert (engine.pruned, engine.eligible, engine.found, engine.chosen) == (2, 1, 1, 0)


def found_and_chosen(*pairs: tuple[str, str]) -> str:
    lines = []
    for found, chosen in pairs:
        for form, names in (("Found {} layer(s) eligible to use", found), ("Chose {} layer(s) using", chosen)):
            count = len(names.split(", ")) if names else 0
            lines.append(f"[I] [TRT] (Sparsity) {form.format(count)} sparse tactics: {names}")
    return "\n".join(lines)


def test_the_last_pass_that_speaks_of_a_layer_has_the_word(file: Path) -> None:
    log = found_and_chosen(("conv1, conv2", "conv1, conv2"), ("conv1, conv2", "conv2"))
    assert states(evidence(file, log)[0])["stage.a"] == ("yes", "no")
    assert states(evidence(file, log)[0])["stage.b"] == ("yes", "yes")


def test_an_engine_of_another_part_of_the_network_says_nothing_of_this_one(file: Path) -> None:
    log = found_and_chosen(("conv1 + relu1", "conv1 + relu1"), ("fc", ""))
    assert states(evidence(file, log)[0]) == {
        "stage.a": ("yes", "yes"), "stage.b": ("no", "no"), "stage.c": ("unknown", "unknown"), "head": ("yes", "no")
    }  # fmt: skip


def test_builds_whose_lines_are_interleaved(file: Path) -> None:
    first, second = found_and_chosen(("conv1", "conv1")), found_and_chosen(("fc, conv2", "fc"))
    (found1, chosen1), (found2, chosen2) = first.splitlines(), second.splitlines()
    shown = states(evidence(file, "\n".join((found1, found2, chosen1, chosen2)))[0])
    assert (shown["stage.a"], shown["head"], shown["stage.b"]) == (
        ("yes", "unknown"),  # the second choice may be of its build too, and does not name it
        ("yes", "yes"),
        ("yes", "no"),
    )


def test_counts_alone_say_only_that_nothing_was_chosen(file: Path) -> None:
    sparsity, engine = evidence(file, texts.COUNTS_ALONE)
    assert states(sparsity)["stage.a"] == ("unknown", "no")
    assert (engine.found_unknown, engine.chosen, engine.chosen_unknown) == (3, 0, 0)
    assert "counts 39 eligible layers and names 0" in engine.notes[0]
    assert "which it found eligible is unknown" in engine.account


def test_nothing_found_is_a_no(file: Path) -> None:
    log = "(Sparsity) Found 0 layer(s) eligible to use sparse tactics\n(Sparsity) Chose 0 layer(s) using sparse tactics"
    assert set(states(evidence(file, log)[0]).values()) == {("no", "no"), ("unknown", "unknown")}


@pytest.mark.parametrize("log", ["", texts.SPARSITY_OFF])
def test_a_log_that_says_nothing_leaves_all_unknown_with_the_reason(file: Path, log: str) -> None:
    sparsity, engine = evidence(file, log)
    assert set(states(sparsity).values()) == {("unknown", "unknown")}
    assert (engine.found_unknown, engine.chosen_unknown) == (3, 3)
    assert engine.notes[0].startswith("Nothing is known from the build log: ")
    assert (
        engine.account == "Of 3 pruned layers it is unknown which TensorRT found eligible and which run sparse kernels."
    )


def test_a_name_that_is_not_understood_leaves_absence_unknown(file: Path) -> None:
    sparsity, engine = evidence(file, found_and_chosen(("conv1, __myl_FcAdd_myl0_3", "__myl_FcAdd_myl0_3")))
    assert states(sparsity)["stage.a"] == ("yes", "unknown")
    assert states(sparsity)["stage.b"] == ("unknown", "unknown")
    assert "__myl_FcAdd_myl0_3" in engine.notes[0]


def test_a_region_leaves_what_it_covers_unknown(file: Path) -> None:
    sparsity, engine = evidence(file, found_and_chosen(("{ForeignNode[conv2...fc]}", "{ForeignNode[conv2...fc]}")))
    shown = states(sparsity)
    assert (shown["stage.a"], shown["stage.b"]) == (("no", "no"), ("unknown", "unknown"))
    assert "regions by their ends" in engine.notes[0]


def region(metadata: str, **fields: object) -> str:
    layer = {"Name": "{ForeignNode[conv1...fc]}", "LayerType": "Myelin", "Metadata": metadata, **fields}
    return json.dumps({"Layers": [layer]})


def test_a_region_that_lists_its_nodes_speaks_of_them(file: Path) -> None:
    nodes = "\x1e".join(f"[ONNX Layer: {name}]" for name in ("conv1", "conv2"))
    listed = states(evidence(file, layers=region(nodes, TacticName=texts.SPARSE_KERNELS[0]))[0])
    assert (listed["stage.a"], listed["head"]) == (("yes", "yes"), ("unknown", "unknown"))
    sparsity, engine = evidence(file, layers=region(""))
    assert set(states(sparsity).values()) == {("unknown", "unknown")}
    assert "names no layer of the engine for 3 pruned layers" in engine.notes[0]


def test_names_alone_leave_all_unknown(file: Path) -> None:
    sparsity, engine = evidence(file, layers=texts.NAMES_ONLY)
    assert set(states(sparsity).values()) == {("unknown", "unknown")}
    assert engine.engine_layers == 3
    assert "detailed" in engine.notes[0]


def test_a_layer_that_is_used_twice_holds_what_both_uses_hold(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w.weight"], ["a"], name="one"), node("Conv", ["a", "w.weight"], ["y"], name="two")]
    metadata = {LAYER_MAP_KEY: json.dumps({"w": ["one", "two"]})}
    file = save(tmp_path / "model.onnx", nodes, {"w.weight": two_four((8, 8, 1, 1), 1)}, metadata=metadata)
    sparsity, engine = evidence(file, found_and_chosen(("one, two", "one")))
    assert {(row.found, row.chosen) for row in sparsity.layers} == {("yes", "no")}
    assert (engine.pruned, engine.found, engine.chosen) == (1, 1, 0)


@pytest.mark.parametrize(
    ("log", "layers", "option"),
    [
        (found_and_chosen(("Conv_3 + Relu_4", "")), None, "--engine-log"),
        (found_and_chosen(("add + relu2", "")), None, "--engine-log"),  # a common name is not enough
        (None, json.dumps({"Layers": [{"Name": "Conv_3 + Relu_4"}]}), "--engine-layers"),
    ],
)
def test_an_engine_of_another_model_is_an_error(file: Path, log: str | None, layers: str | None, option: str) -> None:
    with pytest.raises(SourceError, match=f"{option} is of another model") as caught:
        evidence(file, log, layers)
    assert dict(caught.value.parts()).keys() == {"seen", "allowed", "try"}


def test_wrong_files_are_errors_that_name_the_option(file: Path, tmp_path: Path) -> None:
    swapped = tmp_path / "layers.json"
    swapped.write_text(texts.INSPECTOR, encoding="utf-8")
    binary = tmp_path / "model.engine"
    binary.write_bytes(b"ftrt\0\0\1")
    for path, message in (
        (swapped, "inspector's JSON"),
        (binary, "not a text file"),
        (tmp_path / "none", "cannot be read"),
    ):
        with pytest.raises(SourceError, match=message) as caught:
            read_account(path, None)
        assert dict(caught.value.parts()).keys() == {"seen", "allowed", "try"}
        assert "--engine-log" in caught.value.what


def test_a_redirected_log_of_powershell_is_read(file: Path) -> None:
    path = file.with_name("build.log")
    path.write_bytes(texts.TRTEXEC_10.encode("utf-16"))
    assert read_account(path, None).log == captured_account(texts.TRTEXEC_10).log
