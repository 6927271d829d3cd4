"""Every door with damaged files, and with what is no regular file."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import DOORS, Door, mutated, outcome
from snowsdeploy.data.open import require_source
from snowsdeploy.engines.account import read_account
from snowsdeploy.errors import DataError, SourceError, UsageError
from snowsdeploy.files import reading, require_regular
from snowsdeploy.models.formats import detect_format
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.report.store import read_report
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.settings.read import load_policy, read_file
from snowsdeploy.stages.inspect import inspect_file


@pytest.fixture(scope="module", params=DOORS, ids=lambda door: door.name)
def valid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Door, bytes, Path]:
    """A door, a file that passes it, and where to put damaged ones."""
    door: Door = request.param
    folder = tmp_path_factory.mktemp("door")
    path = folder / f"valid{door.suffix}"
    door.write(path)
    damaged = folder / f"damaged{door.suffix}"
    damaged.write_bytes(path.read_bytes()[:-40])
    for one in (path, damaged):
        outcome(door, one)  # imports what it needs, and what its messages need
    assert outcome(door, path) == "loaded"
    return door, path.read_bytes(), damaged


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1))
def test_a_damaged_file_loads_or_is_refused_soon(valid: tuple[Door, bytes, Path], seed: int) -> None:
    door, content, path = valid
    path.write_bytes(mutated(content, random.Random(seed)))
    assert outcome(door, path) in ("loaded", "refused")


@pytest.fixture(params=["named pipe", "device", "socket"])
def special(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What would be waited for, or read, for ever."""
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    if request.param == "device":
        yield Path("/dev/zero")
    elif request.param == "named pipe":
        os.mkfifo("pipe.onnx")
        yield Path("pipe.onnx")
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("s")
            yield Path("s")


OPENED: dict[str, Callable[[Path], object]] = {
    "model": detect_format,
    "inspect": lambda path: inspect_file(path, Pattern(2, 4)),
    "session": OrtSession.open,
    "data": lambda path: require_source(str(path), "--data"),
    "policy": load_policy,
    "config": read_file,
    "report": read_report,
    "engine log": lambda path: read_account(path, None),
    "engine layers": lambda path: read_account(None, path),
}


@pytest.mark.parametrize("opened", OPENED)
def test_only_regular_files_are_opened(special: Path, opened: str) -> None:
    with pytest.raises(Exception, match=r"is no file|cannot be read|no file or folder") as caught:
        OPENED[opened](special)
    assert caught.value.allowed == "a regular file"


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(DataError, match="is no file"):
        require_regular(Path("a\0b"), "it is no file", DataError)


def test_a_door_keeps_messages_and_interrupts() -> None:
    with pytest.raises(UsageError), reading(lambda error: SourceError("other")):
        raise UsageError("own")
    with pytest.raises(KeyboardInterrupt), reading(lambda error: SourceError("other")):
        raise KeyboardInterrupt
    with pytest.raises(SourceError, match="other"), reading(lambda error: SourceError("other")):
        raise RecursionError
