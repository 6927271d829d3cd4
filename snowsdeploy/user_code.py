"""The user's own code by its name, found from the current directory as application servers find it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from snowsdeploy.errors import SnowsDeployError, first_line


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
    with current_directory_first():
        try:
            return function(*arguments, **keywords)
        except SnowsDeployError:
            raise
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise UserCodeError(
                f"the factory {text} raised {type(error).__name__}", seen=first_line(error, 300), fix=fix
            ) from error


def _find(text: str) -> Callable[..., object]:
    module_name, _, attribute = text.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's code runs when it is imported
        raise UserCodeError(
            "the module cannot be imported",
            seen=f"{module_name}: {type(error).__name__}: {first_line(error, 300)}",
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
