"""Every wording and prefix of TensorRT's lines on sparsity, and logs that say nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowsdeploy.engines.tensorrt_log import Listing, SparsityPass, parse_log, split_names
from tests.engines import tensorrt_texts as texts

FOUND = ("conv1 + relu1", "conv2 + add + relu2", "fc")
CHOSEN = ("conv2 + add + relu2",)

plain = st.from_regex(r"[A-Za-z_/][A-Za-z0-9_./:-]{0,20}", fullmatch=True).filter(lambda name: "..." not in name)
fused = st.lists(plain, min_size=1, max_size=3).map(" + ".join)
layer = st.one_of(
    fused,
    st.tuples(plain, plain).map(lambda ends: f"{{ForeignNode[{ends[0]}...{ends[1]}]}}"),
    st.tuples(plain, plain).map(lambda parts: f"PWN(PWN({parts[0]}), {parts[1]})"),
    st.tuples(plain, plain).map(" || ".join),
    st.just("[HostToDeviceCopy 0]"),
)
PREFIXES = (
    "",
    "[11/21/2026-10:00:02] [I] [TRT] ",
    "[11/21/2026-10:00:02] [V] [TRT] ",
    "[TensorRT] INFO: ",
    "2026-11-21 10:00:01.515349260 [I:onnxruntime:Default, tensorrt_execution_provider.h:88 log] "
    "[2026-11-21 10:00:01    INFO] ",
)
WORDINGS = (
    (
        "(Sparsity) Found {n} layer(s) eligible to use sparse tactics: {names}",
        "(Sparsity) Chose {n} layer(s) using sparse tactics: {names}",
    ),
    (
        "(Sparsity) Layers eligible for sparse math: {names}",
        "(Sparsity) TRT inference plan picked sparse implementation for layers: {names}",
    ),
)


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        (texts.TRTEXEC_10, True),
        (texts.TRTEXEC_8, False),
        (texts.PYTHON_LOGGER_8, False),
        (texts.ONNX_RUNTIME, True),
        (texts.ONNX_RUNTIME_LOGGER_OF_A_PROGRAM, True),
        (texts.WRAPPED, False),
        (texts.TRTEXEC_10.replace("\n", "\r\n"), True),
    ],
)
def test_every_wording_and_prefix(text: str, counted: bool) -> None:
    (found,) = parse_log(text).passes
    assert found == SparsityPass(Listing(FOUND, 3 if counted else None), Listing(CHOSEN, 1 if counted else None))


def test_counts_without_names_are_not_complete_unless_they_are_zero() -> None:
    (found,) = parse_log(texts.COUNTS_ALONE).passes
    assert found == SparsityPass(Listing((), 39), Listing((), 0))
    assert found.found is not None
    assert found.chosen is not None
    assert (found.found.complete, found.chosen.complete) == (False, True)


def test_an_empty_list_means_none() -> None:
    (found,) = parse_log(texts.NO_SPARSE_KERNEL_8).passes
    assert found == SparsityPass(Listing(("conv1 + relu1",)), Listing(()))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (texts.SPARSITY_OFF, "sparsity off"),
        ("[11/21/2026-10:00:00] [I] Engine built in 31.1935 sec.\n", "--verbose"),
        ("[11/21/2026-10:00:00] [V] [TRT] Registering layer: conv1 for ONNX node: conv1\n", "no line on sparsity"),
        ("[I] (Sparsity) something that a later version may say\n", "--verbose"),
    ],
)
def test_a_log_that_says_nothing_has_a_reason(text: str, reason: str) -> None:
    log = parse_log(text)
    assert log.passes == ()
    assert reason in log.reason


def test_lines_after_a_list_are_not_part_of_it() -> None:
    long = ", ".join(f"conv{i}" for i in range(12))
    line = f"(Sparsity) Layers eligible for sparse math: {long}"
    for other in (
        "accuracy of the model is 0.9",
        "[I] [TRT] Total",
        "2026-11-21 10:00:01 [I:onnxruntime",
        "",
        "&&&& PASSED",
    ):
        (found,) = parse_log(f"{line}\n{other}\n").passes
        assert found.found == Listing(tuple(long.split(", ")))


def test_commas_inside_brackets_belong_to_the_name() -> None:
    assert split_names("PWN(PWN(a), b), c || d,{ForeignNode[x...y]} ,") == (
        "PWN(PWN(a), b)", "c || d", "{ForeignNode[x...y]}",
    )  # fmt: skip
    assert split_names("a), b") == ("a)", "b")


@given(
    passes=st.lists(st.tuples(st.lists(layer, max_size=5), st.lists(layer, max_size=3)), min_size=1, max_size=4),
    prefix=st.sampled_from(PREFIXES),
    wording=st.sampled_from(WORDINGS),
    noise=st.sampled_from(["", "[I] [TRT] Total Host Persistent Memory: 160", "print of a script", "&&&& PASSED"]),
)
def test_what_is_written_is_read(
    passes: list[tuple[list[str], list[str]]], prefix: str, wording: tuple[str, str], noise: str
) -> None:
    lines = [
        prefix + form.format(n=len(names), names=", ".join(names)) + f"\n{noise}"
        for part in passes
        for form, names in zip(wording, part, strict=True)
    ]
    read = parse_log("\n".join(lines))
    assert read.reason == ""
    assert [(tuple(a), tuple(b)) for a, b in passes] == [
        (p.found.names, p.chosen.names) for p in read.passes if p.found and p.chosen
    ]
    assert all(listing.complete for p in read.passes for listing in (p.found, p.chosen) if listing)


@given(names=st.lists(fused, min_size=8, max_size=40, unique=True), width=st.integers(100, 160))
def test_names_survive_a_terminal(names: list[str], width: int) -> None:
    line = f"[11/21/2026-10:00:02] [I] [TRT] (Sparsity) Layers eligible for sparse math: {', '.join(names)}"
    broken = "\n".join(line[i : i + width].rstrip() for i in range(0, len(line), width))
    (found,) = parse_log(broken).passes
    assert found.found is not None
    assert [name.replace(" ", "") for name in found.found.names] == [name.replace(" ", "") for name in names]


@given(st.text())
def test_any_text_is_read_or_has_a_reason(text: str) -> None:
    log = parse_log(text)
    assert bool(log.passes) != bool(log.reason)


FRAGMENTS = (
    "(Sparsity) ",
    "Found 3",
    " layer(s) eligible to use sparse tactics",
    "Chose 1 layer(s) using sparse tactics",
    "Layers eligible for sparse math",
    ":",
    "\n",
    "a, b",
    "(",
    "}",
)


@given(st.lists(st.sampled_from(FRAGMENTS)))
def test_fragments_of_lines_never_break_it(parts: list[str]) -> None:
    log = parse_log("".join(parts))
    assert bool(log.passes) != bool(log.reason)
