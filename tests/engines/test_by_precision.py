"""Which file of an engine belongs to which precision."""

from __future__ import annotations

from pathlib import Path

import pytest

from snowsdeploy.engines.by_precision import by_precision
from snowsdeploy.errors import UsageError
from snowsdeploy.values import Precision


@pytest.mark.parametrize(
    ("texts", "asked", "files"),
    [
        ((), ("fp32", "fp16"), {}),
        (("a.log",), ("fp16",), {"fp16": "a.log"}),
        (("fp16=a.log",), ("fp16",), {"fp16": "a.log"}),
        (("x=a.log",), ("fp32",), {"fp32": "x=a.log"}),
        (("int8=a=b.log", "fp32=c.log"), ("fp32", "int8"), {"int8": "a=b.log", "fp32": "c.log"}),
    ],
)
def test_a_file_has_a_precision(texts: tuple[str, ...], asked: tuple[Precision, ...], files: dict[str, str]) -> None:
    assert by_precision(texts, asked, "--engine-log") == {name: Path(path) for name, path in files.items()}


@pytest.mark.parametrize(
    ("texts", "asked", "message"),
    [
        (("a.log",), ("fp32", "fp16"), "does not say which precision"),
        (("int8=a.log",), ("fp32", "fp16"), "does not have"),
        (("fp16=a.log", "fp16=b.log"), ("fp32", "fp16"), "two files for fp16"),
        (("a.log", "fp32=b.log"), ("fp32",), "two files for fp32"),
    ],
)
def test_what_is_not_clear_is_an_error(texts: tuple[str, ...], asked: tuple[Precision, ...], message: str) -> None:
    with pytest.raises(UsageError, match=f"--engine-log .*{message}") as caught:
        by_precision(texts, asked, "--engine-log")
    assert caught.value.seen
    assert caught.value.allowed
