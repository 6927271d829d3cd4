"""Whole node names inside the names that engines make."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowsdeploy.engines.names import NamedNodes, invented, read_name

NODES = ("input_cast", "conv_1", "relu", "/layer1/conv/Conv", "conv_12", "a.b", "/fc/MatMul", "/fc/Add")
ORDER = {name: place for place, name in enumerate(NODES)}
node_names = st.lists(
    st.from_regex(r"[A-Za-z_/]([.:-]?[A-Za-z0-9_/]){0,8}", fullmatch=True), min_size=1, max_size=8, unique=True
)


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("conv_1", {"conv_1"}),
        ("conv_12 + relu", {"conv_12", "relu"}),
        ("conv_123", set()),
        ("xconv_1 + conv_1_bias", set()),
        ("/layer1/conv/Conv + relu", {"/layer1/conv/Conv", "relu"}),
        ("PWN(PWN(relu), a.b)", {"relu", "a.b"}),
        ("conv_1 || conv_12", {"conv_1", "conv_12"}),
        ("conv_1.weight + QuantizeLinear_3 + conv_1 + relu", {"conv_1", "relu"}),
        ("/fc/MatMul+/fc/Add_myl0_12", {"/fc/MatMul", "/fc/Add"}),
        ("conv_1 + relu [profile 1]", {"conv_1", "relu"}),
        ("reshape_before_/fc/MatMul", set()),
        ("[HostToDeviceCopy 0]", set()),
        ("(Unnamed Layer* 12) [Shuffle]", set()),
        ("", set()),
    ],
)
def test_only_whole_names_count(text: str, nodes: set[str]) -> None:
    assert read_name(text, ORDER) == NamedNodes(frozenset(nodes))


@pytest.mark.parametrize(
    ("text", "nodes", "covered"),
    [
        ("{ForeignNode[conv_1.../layer1/conv/Conv]}", set(), {"conv_1", "relu", "/layer1/conv/Conv"}),
        ("{ForeignNode[conv_12 + a.b.../fc/Add]}", set(), {"conv_12", "a.b", "/fc/MatMul", "/fc/Add"}),
        ("{ForeignNode[a.b...a.b]} + relu", {"relu"}, {"a.b"}),
        ("{ForeignNode[conv_1...elsewhere]}", set(), set()),
    ],
)
def test_a_region_covers_what_lies_between_its_ends(text: str, nodes: set[str], covered: set[str]) -> None:
    assert read_name(text, ORDER) == NamedNodes(frozenset(nodes), frozenset(covered))


def test_a_name_may_hold_what_elsewhere_separates() -> None:
    assert read_name("a + b(1)", {"a + b(1)": 0, "a": 1}).nodes == {"a + b(1)"}


@pytest.mark.parametrize(
    "text", ["__myl_FcAdd_myl0_3", "{ForeignNode[a...b]}", "(Unnamed Layer* 1) [Shuffle]", "[Copy 0]"]
)
def test_the_compilers_own_names_are_known(text: str) -> None:
    assert invented(text)
    assert not any(invented(name) for name in NODES)


@given(names=node_names, data=st.data())
def test_fused_names_are_taken_apart(names: list[str], data: st.DataObject) -> None:
    order = {name: place for place, name in enumerate(names)}
    parts = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    assert read_name(" + ".join(parts), order).nodes == set(parts)
    first, last = sorted((order[parts[0]], order[parts[-1]]))
    region = read_name(f"{{ForeignNode[{names[first]}...{names[last]}]}}", order)
    assert region.covered == set(names[first : last + 1])


@given(text=st.text(), names=st.lists(st.text(min_size=1), unique=True))
def test_any_text_names_only_what_is_known(text: str, names: list[str]) -> None:
    found = read_name(text, {name: place for place, name in enumerate(names)})
    assert found.nodes | found.covered <= set(names)
