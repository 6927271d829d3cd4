"""Atomic writes: a reader sees the old file or the whole new one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snowsdeploy.errors import OutputError
from snowsdeploy.plain_text import encodable


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same directory; it replaces `path` when the block succeeds, else it is removed."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Around what writes a file and nothing else: a full disk is one clear message, whichever library met it.

    Args:
        path: The file.
        errors: What a library raises beside OSError and RuntimeError.

    Raises:
        OutputError: It could not be written.
    """
    refused: tuple[type[Exception], ...] = (OSError, RuntimeError, *errors)
    try:
        yield
    except refused as error:
        reason = str(error).splitlines()[0][:200]
        fix = "free some space; the same command with --resume goes on where this one ended"
        raise OutputError("a file could not be written", seen=f"{path}: {reason}", fix=fix) from error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; it takes that name when the block succeeds, else it is removed.

    Raises:
        OSError: `path` is there already and not an empty folder.
    """
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text, all or nothing; what UTF-8 cannot hold, as in names of files, becomes escapes."""
    with atomic_path(path) as temporary:
        temporary.write_text(encodable(text), encoding="utf-8")


def _umask() -> int:
    umask = os.umask(0)  # it can only be read by setting it
    os.umask(umask)
    return umask
