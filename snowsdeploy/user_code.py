"""The user's own code: found by its name from the current directory, and contained while it runs.

It may be a whole training script. Importing or calling it can read the command line, print, call `sys.exit(0)` or raise
anything: none of that may end this program, set its exit code or write among its results.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from snowsdeploy.errors import SnowsDeployError, first_line

T = TypeVar("T")
_END = object()
_PACKAGES = ("snowsdeploy", "snowsdeploy_cli", "snowsdeploy_exporters", "torch", "importlib", "argparse", "contextlib")


class UserCodeError(SnowsDeployError):
    """It cannot be imported, is not there, or raises; whoever asked says what it was for."""


def call_user_code(text: str, arguments: Mapping[str, Any], fix: str | None = None) -> object:
    """Import and call `package.module:function`.

    Args:
        text: Its name.
        arguments: Keyword arguments.
        fix: What to do where it raises.

    Raises:
        UserCodeError: It cannot be imported, or raises.
    """
    return call_loaded(text, load_user_code(text), fix=fix, **arguments)


def load_user_code(text: str) -> Callable[..., object]:
    """Import `package.module:function`.

    Raises:
        UserCodeError: It cannot be imported, or is no function.
    """
    with current_directory_first():
        return _find(text)


@contextmanager
def contained(what: str, fix: str | None = None) -> Iterator[None]:
    """Around the user's code: it sees no options of this program, and prints to standard error.

    Args:
        what: What runs, with its name: a sentence that "raised ValueError" completes.
        fix: What to do where it raises.

    Raises:
        UserCodeError: It raised something, or tried to end the program. An interruption stays one, and what is too
            little memory too.
    """
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        with current_directory_first(), redirect_stdout(sys.stderr):
            yield
    except (SnowsDeployError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        raise raised(what, error, fix) from error
    finally:
        sys.argv = arguments


def raised(what: str, error: BaseException, fix: str | None = None) -> UserCodeError:
    """The message for what the user's code raised; see `contained`."""
    place = line_of_user_code(error)
    where = f" (at {place})" if place else ""
    if isinstance(error, SystemExit):
        return UserCodeError(
            f"{what} ends the program",
            seen=f"sys.exit({'' if error.code is None else repr(error.code)}){where}",
            allowed="code that returns",
            fix="put what a script runs under if __name__ == '__main__':",
        )
    return UserCodeError(
        f"{what} raised {type(error).__name__}",
        seen=f"{first_line(error, 300)}{where}",
        allowed="code that returns",
        fix=fix or "run it alone in Python and mend it",
    )


def contained_items(what: str, items: Iterable[T]) -> Iterator[T]:
    """Iterate over what the user's code makes, each step contained.

    Raises:
        UserCodeError: As `contained`.
    """
    with contained(what):
        steps = iter(items)
    while True:
        with contained(what):
            item = next(steps, _END)
        if item is _END:
            return
        yield item  # type: ignore[misc]  # the end is no item


def line_of_user_code(error: BaseException) -> str:
    """`file:line` of the last frame that is the user's; empty where there is none."""
    found, frame = "", error.__traceback__
    while frame is not None:
        name = frame.tb_frame.f_globals.get("__name__", "")
        if not _is_ours(name, frame):
            found = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
        frame = frame.tb_next
    return found


def _is_ours(module: object, frame: TracebackType) -> bool:
    file = frame.tb_frame.f_code.co_filename
    return str(module).partition(".")[0] in _PACKAGES or file.startswith("<") or file.startswith(sys.base_prefix)


def call_loaded(
    text: str,
    function: Callable[..., object],
    /,
    *arguments: Any,  # noqa: ANN401 - whatever the function takes
    fix: str | None = None,
    **keywords: Any,  # noqa: ANN401 - as above
) -> object:
    """Call the user's function by the name that messages give it.

    Raises:
        UserCodeError: It raises.
    """
    with contained(f"the factory {text}", fix):
        return function(*arguments, **keywords)


def _find(text: str) -> Callable[..., object]:
    module_name, _, attribute = text.partition(":")
    try:
        with contained(module_name):
            module = importlib.import_module(module_name)
    except UserCodeError as error:
        if not isinstance(cause := error.__cause__, Exception):
            raise
        raise UserCodeError(
            "the module cannot be imported",
            seen=f"{module_name}: {type(cause).__name__}: {first_line(cause, 300)}",
            allowed="package.module:factory, importable from the current directory",
            fix=f"run from the folder that holds {module_name.partition('.')[0]}.py",
        ) from error
    factory: Callable[..., object] | None = getattr(module, attribute, None)
    if not callable(factory):
        names = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
        raise UserCodeError(
            f"{module_name} has no such factory",
            seen=text,
            allowed=", ".join(f"{module_name}:{n}" for n in names[:12])
            or f"nothing: {module_name} defines no function",
            fix="name one of those, or define it",
        )
    return factory


@contextmanager
def current_directory_first() -> Iterator[None]:
    """Import from the current directory, as application servers do."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with suppress(ValueError):  # the imported code may have changed the path itself
            sys.path.remove(folder)
