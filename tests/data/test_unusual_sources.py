"""Data sources that are mistyped, lie about themselves or are of another kind: named as such."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from snowsdeploy.data.open import open_samples, require_source
from snowsdeploy.data.selection import parse_selection
from snowsdeploy.data.targets import targets_of
from snowsdeploy.errors import DataError
from snowsdeploy.values import Preprocessing

PREPROCESSING = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
X = np.zeros((4, 8, 8, 3), np.uint8)


def npy(header: str, data: bytes = X.tobytes()) -> bytes:
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def header(shape: str, descr: str = "'|u1'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


def archive(path: Path, content: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as made:
        made.writestr("x.npy", content)
    return path


HEADERS = {
    "truth": header("(True, 8, 8, 3)"),
    "negative": header("(-4, 8, 8, 3)"),
    "large": header("(4000000000000, 8, 8, 3)"),
    "deep": header("(" * 5000),
    "open": "{'descr': '''",
    "objects": header("(4, 8, 8, 3)", "'|O'"),
    "records": header("(4, 8, 8, 3)", "[('a', '|u1')]"),
    "texts": header("(4,)", "'<U3'"),
    "nothing": "",
    "more digits than Python reads": header(f"({'9' * 5000},)"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_lie(tmp_path: Path, case: str) -> None:
    path = archive(tmp_path / "d.npz", npy(HEADERS[case]))
    with pytest.raises(DataError, match=r"cannot be read|wrong type or shape"):
        open_samples(str(path), PREPROCESSING)


ENTRIES = {"version": (6, 255), "compression": (10, 99)}


@pytest.mark.parametrize("entry", ENTRIES)
def test_archives_that_python_does_not_read(tmp_path: Path, entry: str) -> None:
    path = archive(tmp_path / "d.npz", npy(header("(4, 8, 8, 3)")))
    data, (place, value) = bytearray(path.read_bytes()), ENTRIES[entry]
    start = data.index(b"PK\x01\x02")
    data[start + place : start + place + 2] = struct.pack("<H", value)
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        require_source(str(path), "--data")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damaged_compression(tmp_path: Path, method: int) -> None:
    path = archive(tmp_path / "d.npz", npy(header("(4, 8, 8, 3)"), np.random.default_rng(0).bytes(768)), method)
    data = bytearray(path.read_bytes())
    data[60:200] = b"\xff" * 140
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        open_samples(str(path), PREPROCESSING)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.npz", "does not exist"),
        ("x.npy", "unknown kind"),
        ("/dev/null", "no file or folder"),
        ("", "is empty"),
        ("d.npz[", "malformed"),
        ("d.npz]", "malformed"),
        ("d.npz[0:9][0:3]", "malformed"),
        ("d.npz[0:9", "does not exist"),
        ("d.npz[a:b]", "not a Python slice"),
        ("d.npz[:٣]", "not a Python slice"),
        ("d.npz[0:1_0]", "not a Python slice"),
        ("d.npz[0:2:0]", "not a Python slice"),
        ("d.npz[1]", "not a Python slice"),
        ("a\0b", "no file or folder"),
    ],
)
def test_mistyped_sources_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("d.npz", x=X)
    np.save("x.npy", X)
    with pytest.raises(DataError, match=message):
        require_source(name, "--data")


def test_brackets_of_a_name_that_exists(tmp_path: Path) -> None:
    (tmp_path / "a[0:9]").mkdir()
    assert parse_selection(f"{tmp_path}/a[0:9][0:3]").source == f"{tmp_path}/a[0:9]"


def test_labels_beyond_signed_numbers() -> None:
    with pytest.raises(DataError, match="labels"):
        targets_of(np.array([0, 2**64 - 1], np.uint64), 2, "--data")
    assert targets_of(np.array([0, 3], np.uint64), 2, "--data").dtype == np.int64


def test_an_archive_with_other_members(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, X)
    path = archive(tmp_path / "d.npz", content.getvalue())
    with zipfile.ZipFile(path, "a") as made:
        made.writestr("readme.txt", "hello")
    require_source(str(path), "--data")
