"""Atomic writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from snowsdeploy.errors import OutputError
from snowsdeploy.files import atomic_folder, atomic_path, write_text_atomic
from snowsdeploy.models.tensor_files import save_tensors
from tests.cli.conftest import shell_environment


def test_a_write_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    write_text_atomic(path, "new")
    assert path.read_text() == "new"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_appears_whole_with_ordinary_permissions(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "made") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a.txt").write_text("a")
        assert not (tmp_path / "made").exists()
        assert temporary.parent == tmp_path
    assert (tmp_path / "made" / "inner" / "a.txt").read_text() == "a"
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "made").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert {p.name for p in tmp_path.iterdir()} == {"made", "plain"}


def test_a_folder_that_fails_or_is_taken_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "made") as temporary:
            (temporary / "half.txt").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "precious.txt").touch()
    with pytest.raises(OSError, match="made"), atomic_folder(tmp_path / "made") as temporary:
        (temporary / "new.txt").touch()
    assert [p.name for p in tmp_path.rglob("*.txt")] == ["precious.txt"]


def test_a_full_disk_is_one_message_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("snowsdeploy.models.tensor_files.save_file", full)
    with pytest.raises(OutputError, match="a file could not be written") as caught:
        save_tensors(tmp_path / "a.safetensors", {"w": torch.ones(2)})
    assert "No space left on device" in str(caught.value.seen)
    assert "--resume" in str(caught.value.fix)
    assert list(tmp_path.iterdir()) == []


WHERE_FILES_STAY_SMALL = """
import resource, sys
from pathlib import Path
import torch
from snowsdeploy.errors import OutputError
from snowsdeploy.pruning.flow.storage import DiskStore
from tests.nets import TinyCNN, make_program

program, folder = make_program(TinyCNN()), Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for write in (lambda: program.save(folder / "a.pt2"), lambda: DiskStore(folder).save(0, {"a": torch.ones(9999)})):
    try:
        write()
    except OutputError as error:
        assert error.what == "a file could not be written", error
    else:
        raise AssertionError("written")
assert not (folder / "a.pt2").exists()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size on Windows")
def test_programs_and_activations_that_do_not_fit_are_the_same_message(tmp_path: Path) -> None:
    """In a process of its own: PyTorch's writer of zip archives ends the process where it cannot write."""
    command = [sys.executable, "-c", WHERE_FILES_STAY_SMALL, str(tmp_path)]
    done = subprocess.run(command, env=shell_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tensors_are_written_whole(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.safetensors", {"w": torch.arange(6).view(2, 3).T}, {"key": "k"})
    assert torch.equal(load_file(tmp_path / "a.safetensors")["w"], torch.arange(6).view(2, 3).T)
