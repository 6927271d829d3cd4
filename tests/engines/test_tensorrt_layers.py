"""The engine inspector's JSON: what is read, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowsdeploy.engines.tensorrt_layers import EngineLayer, EngineLayers, parse_layers
from snowsdeploy.errors import SnowsDeployError, SourceError
from tests.engines import tensorrt_texts as texts

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


def one(**fields: object) -> EngineLayer:
    (layer,) = parse_layers(json.dumps({"Layers": [{"Name": "conv", **fields}]})).layers
    return layer


def test_layers_kernels_and_nodes_are_read() -> None:
    engine = parse_layers(texts.INSPECTOR)
    assert engine.detailed
    copy, conv1, conv2, fc = engine.layers
    assert [layer.copies for layer in engine.layers] == [True, False, False, False]
    assert (conv1.sparse_weights, conv1.sparse_kernel, conv1.nodes) == (True, False, ("conv1", "relu1"))
    assert (conv2.sparse_weights, conv2.sparse_kernel, conv2.nodes) == (True, True, ("conv2", "add", "relu2"))
    assert (fc.sparse_weights, fc.sparse_kernel, fc.nodes) == (None, False, ("fc",))
    assert copy.sparse_kernel is None


@pytest.mark.parametrize("kernel", texts.SPARSE_KERNELS)
def test_the_kernel_says_that_it_is_sparse(kernel: str) -> None:
    assert one(TacticName=kernel).sparse_kernel is True


@pytest.mark.parametrize(
    ("value", "flag"), [(0, False), (1, True), (True, True), ("1", True), ("false", False), (None, None), ("?", None)]
)
def test_eligible_weights_are_written_in_several_ways(value: object, flag: bool | None) -> None:
    assert one(HasSparseWeights=value).sparse_weights is flag
    assert one().sparse_weights is None


@pytest.mark.parametrize("separator", ["\x1e", "\x1f", "", " "])
def test_nodes_are_separated_in_several_ways(separator: str) -> None:
    names = ("/layer1/conv/Conv", "a[0]", "node b")
    metadata = separator.join(f"[ONNX Layer: {name}]" for name in names)
    assert one(Metadata=metadata).nodes == names


def test_names_alone_are_not_detailed() -> None:
    engine = parse_layers(texts.NAMES_ONLY)
    assert not engine.detailed
    assert engine.layers[0] == EngineLayer("conv1 + relu1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[TRT] log",
        "[]",
        "{}",
        "3",
        '{"Layers": {}}',
        '{"Layers": [3]}',
        '{"Layers": [{"LayerType": "x"}]}',
        "[" * 10**5,
    ],
)
def test_another_file_is_refused_with_what_to_do(text: str) -> None:
    with pytest.raises(SourceError, match="--engine-layers") as caught:
        parse_layers(text)
    assert caught.value.seen
    assert '"Layers"' in str(caught.value.allowed)
    assert "--exportLayerInfo" in str(caught.value.fix)


@given(
    st.lists(
        st.builds(
            EngineLayer,
            name=st.text(max_size=9),
            kind=st.text(max_size=9),
            kernel=st.text(max_size=9),
            sparse_weights=st.sampled_from([None, True, False]),
            nodes=st.lists(st.from_regex(r"[\w/.:]+", fullmatch=True), max_size=3).map(tuple),
        )
    )
)
def test_what_is_written_is_read(layers: list[EngineLayer]) -> None:
    rows = [
        {
            "Name": layer.name,
            "LayerType": layer.kind,
            "TacticName": layer.kernel,
            "Metadata": "\x1e".join(f"[ONNX Layer: {node}]" for node in layer.nodes),
        }
        | ({} if layer.sparse_weights is None else {"HasSparseWeights": int(layer.sparse_weights)})
        for layer in layers
    ]
    assert parse_layers(json.dumps({"Layers": rows})) == EngineLayers(tuple(layers), bool(layers))


shapes = json_values.map(lambda value: {"Layers": [value, {"Name": "x", "Metadata": value, "TacticName": value}]})


@given(st.text() | json_values.map(json.dumps) | shapes.map(json.dumps))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_layers(text)
    except SnowsDeployError as error:
        parts = dict(error.parts())
    else:
        return
    assert parts.keys() == {"seen", "allowed", "try"}
