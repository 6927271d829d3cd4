"""Weights that are no real numbers, archives that lie, and `.pt2` files that would never end."""

from __future__ import annotations

import struct
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from snowsdeploy.errors import SourceError
from snowsdeploy.models.checkpoint import StateDict, read_checkpoint
from snowsdeploy.models.formats import detect_format
from snowsdeploy.models.plain_expression import is_plain_expression
from snowsdeploy.models.pt2_safety import find_code
from snowsdeploy.models.weights import load_weights
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.stages.inspect import inspect_file
from tests.models.test_sources_pt2 import edit_json, plain  # noqa: F401 - a fixture

ONES = torch.ones(8, 8)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyTorch calls sparse CSR and quantised tensors a beta, or old
    UNUSUAL = {
        "complex64": ONES.to(torch.complex64),
        "bool": ONES.bool(),
        "sparse_coo": ONES.to_sparse(),
        "sparse_csr": ONES.to_sparse_csr(),
        "quantised": torch.quantize_per_tensor(ONES, 0.1, 0, torch.qint8),
        "meta": ONES.to("meta"),
        "lazy": nn.UninitializedParameter(),
    }
FLOAT8 = ONES.to(torch.float8_e4m3fn)


@pytest.mark.parametrize("kind", [*UNUSUAL, "float8"])
def test_weights_without_real_values_are_refused_by_name(kind: str) -> None:
    state = {"weight": UNUSUAL.get(kind, FLOAT8), "bias": torch.zeros(8)}
    with pytest.raises(SourceError, match=r"weight|quantised|lazy") as caught:
        load_weights(nn.Linear(8, 8), [StateDict("", state)], "net")
    assert "weight" in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_real_numbers_load(dtype: torch.dtype) -> None:
    module = nn.Linear(8, 8)
    load_weights(module, [StateDict("", {"weight": ONES.to(dtype), "bias": torch.zeros(8)})], "net")
    assert module.weight.dtype == torch.float32
    assert bool((module.weight == 1).all())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["complex64", "bool", "sparse_coo", "sparse_csr", "quantised", "meta"])
def test_inspect_lists_what_it_cannot_read(tmp_path: Path, kind: str) -> None:
    torch.save({"a.weight": UNUSUAL[kind], "b.weight": ONES}, tmp_path / "m.pth")
    rows = {row.name: row for row in inspect_file(tmp_path / "m.pth", Pattern(2, 4)).layers}
    assert rows["a"].note.startswith("unproven, because it is")
    assert rows["b"].groups == 16


def test_inspect_reads_eight_bits(tmp_path: Path) -> None:
    torch.save({"a.weight": FLOAT8}, tmp_path / "m.pth")
    (row,) = inspect_file(tmp_path / "m.pth", Pattern(2, 4)).layers
    assert row.violations == 16


def test_a_view_that_repeats_one_value_is_not_spread_out(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(1).expand(1 << 20, 1 << 20)}, tmp_path / "m.pth")
    (row,) = inspect_file(tmp_path / "m.pth", Pattern(2, 4)).layers
    assert "repeats" in row.note


def test_keys_that_are_no_text(tmp_path: Path) -> None:
    torch.save({"\ud800.weight": ONES, 3: torch.ones(2)}, tmp_path / "m.pth")
    assert list(
        read_checkpoint(tmp_path / "m.pth", detect_format(tmp_path / "m.pth"), allow_pickle=False).state_dict
    ) == [
        "\\ud800.weight",
        "3",
    ]


def directory_entry(path: Path, change: dict[int, bytes]) -> None:
    """Change bytes of the first entry of a zip's directory, by their place in it."""
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02")
    for place, value in change.items():
        data[start + place : start + place + len(value)] = value
    path.write_bytes(data)


ENTRIES = {
    "version": {6: struct.pack("<H", 255)},
    "name that is no UTF-8": {8: struct.pack("<H", 0x800), 46: b"\xff"},
    "unknown compression": {10: struct.pack("<H", 99)},
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_archives_that_python_does_not_read(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "m.pth"
    torch.save({"a.weight": ONES}, path)
    directory_entry(path, ENTRIES[entry])
    with pytest.raises(SourceError, match="truncated or damaged"):
        read_checkpoint(path, detect_format(path), allow_pickle=False)


def test_an_archive_named_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(SourceError):
        read_checkpoint(path, detect_format(path), allow_pickle=False)


@pytest.mark.parametrize("header", [b"[" * 10**5, b'{"a":' * 10**5])
def test_deep_headers(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(SourceError, match="header cannot be read"):
        detect_format(path)


ENDLESS = [
    *("9**9**9**9", "10**10**10", "((9**60)**60)**60", "2**s0", "1 << 10**9", "1 << 1000"),
    *("Pow(Integer(10), Pow(Integer(10), Integer(10)))", "Pow(Pow(Integer(99), Integer(64)), Integer(64))"),
    *("LShift(Integer(1), Integer(1000000000))", "Float(1.5, 1000000000)", "Float(1.5, precision=1000000000)"),
    *("RoundDecimal(1.5, 1000000000)", "PowByNatural(Integer(9), Integer(999999999))", "-" * 4000 + "1"),
    "Integer(10)**Integer(10)**Integer(10)",
]


@pytest.mark.parametrize("text", ENDLESS)
def test_expressions_that_would_never_end(text: str) -> None:
    assert not is_plain_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "Pow(Symbol('s77', positive=True, integer=True), Integer(2))",
        "Mul(Integer(4), Pow(Symbol('s0', positive=True, integer=True), Integer(-1)))",
        "s0**2 * s1**2 + 4",
        "Float(1.5, precision=53)",
        "Pow(Symbol('s', positive=True), Rational(1, 2))",
    ],
)
def test_arithmetic_of_sizes(text: str) -> None:
    assert is_plain_expression(text)


@pytest.mark.parametrize("target", ["torch.ops.aten.from_file.default", "torch.ops.aten.from_file.out"])
def test_operators_that_write_files(plain: Path, target: str) -> None:  # noqa: F811 - the fixture
    def edit(content) -> None:
        content["graph_module"]["graph"]["nodes"][0]["target"] = target

    edit_json(plain, edit)
    assert "the target" in (find_code(plain) or "")
