"""The doors between files and the program: regular files are read, whole files written, folders held by one process."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from re import Pattern

from snowsdeploy.errors import OutputError, SnowsDeployError, first_line
from snowsdeploy.plain_text import encodable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def require_regular(path: Path, what: str, refused: type[SnowsDeployError], *, fix: str = "check the path") -> None:
    """Refuse what is no regular file before it is opened: a pipe may wait for ever, and a device need not end.

    A path where nothing is, or that cannot be looked at, is left to whoever opens it.

    Args:
        path: As the user gave it.
        what: What is wrong, for the message.
        refused: The error.
        fix: What to do.

    Raises:
        SnowsDeployError: `refused`, where there is something else than a regular file.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a name that no file can have
        raise refused(what, seen=f"{str(path)!r}: {error}", allowed="a name that a file can have", fix=fix) from error
    except OSError:
        return
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        raise refused(what, seen=f"{path} is {kind}", allowed="a regular file", fix=fix)


@contextmanager
def reading(refused: Callable[[Exception], SnowsDeployError]) -> Iterator[None]:
    """The door of a parser: whatever it raises becomes one message.

    Args:
        refused: Makes the error.

    Raises:
        SnowsDeployError: What `refused` makes.
    """
    try:
        yield
    except SnowsDeployError:
        raise
    except Exception as error:  # foreign bytes make parsers raise types that no list holds, such as struct.error
        raise refused(error) from error


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
        fix = "free some space; the same command with --resume goes on where this one ended"
        if isinstance(error, PermissionError):
            fix = "change the permissions, or choose another --out"
        raise OutputError(
            "a file could not be written",
            seen=f"{path}: {first_line(error)}",
            allowed="a folder that can be written, with room for the file",
            fix=fix,
        ) from error


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


@contextmanager
def locked_folder(path: Path) -> Iterator[None]:
    """Nobody else who asks gets the folder meanwhile; the lock ends with the process, however that ends.

    File systems and systems without such locks let everyone in.

    Raises:
        OutputError: Another process has it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                "another run is writing to this folder",
                seen=path,
                allowed="one run at a time in a folder",
                fix="wait for it to end, or choose another --out",
            ) from error
        except OSError:  # no locks here, as on some network drives
            pass
        yield
    finally:
        os.close(handle)


def remove_own(folder: Path, names: Pattern[str]) -> None:
    """Remove the files of a folder whose whole name is ours, and the folder where nothing is left.

    Args:
        folder: May be missing.
        names: What ours look like; those of an unfinished `atomic_path` are ours too.
    """
    if not folder.is_dir() or folder.is_symlink():
        return
    for path in list(folder.iterdir()):
        unfinished = re.fullmatch(r"\.(.+)-\w{8}(\.\w+)", path.name)
        name = f"{unfinished[1]}{unfinished[2]}" if unfinished else path.name
        if names.fullmatch(name) and not path.is_dir():
            path.unlink(missing_ok=True)
    remove_if_empty(folder)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text, all or nothing; what UTF-8 cannot hold, as in names of files, becomes escapes."""
    with atomic_path(path) as temporary:
        temporary.write_text(encodable(text), encoding="utf-8")


def _umask() -> int:
    umask = os.umask(0)  # it can only be read by setting it
    os.umask(umask)
    return umask
