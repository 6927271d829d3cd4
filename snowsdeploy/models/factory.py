"""`package.module:factory` -> module, found from the current directory as application servers do."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import nn

from snowsdeploy.errors import SourceError
from snowsdeploy.models.formats import first_line
from snowsdeploy.models.unwrap import unwrapped


def call_factory(text: str, arguments: Mapping[str, Any], *, option: str) -> nn.Module:
    """Import and call a user's factory.

    Args:
        text: `package.module:factory`.
        arguments: Keyword arguments of the factory.
        option: The option it was given by, for messages.

    Raises:
        SourceError: It cannot be imported, raises, or returns no module.
    """
    with current_directory_first():
        factory = _find(text, option)
        try:
            result = factory(**arguments)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise SourceError(
                f"{option}: the factory {text} raised {type(error).__name__}",
                seen=first_line(error),
                fix="check --model-arg",
            ) from error
    if not isinstance(result, nn.Module):
        raise SourceError(
            f"{option}: the factory returned no torch.nn.Module", seen=type(result).__name__, fix=f"check {text}"
        )
    return unwrapped(result)


def _find(text: str, option: str) -> Callable[..., object]:
    module_name, _, attribute = text.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's code runs when it is imported
        raise SourceError(
            f"{option}: the module cannot be imported",
            seen=f"{module_name}: {type(error).__name__}: {first_line(error)}",
            allowed="package.module:factory, importable from the current directory",
            fix=f"run from the folder that holds {module_name.partition('.')[0]}.py",
        ) from error
    factory: Callable[..., object] | None = getattr(module, attribute, None)
    if not callable(factory):
        names = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
        raise SourceError(
            f"{option}: {module_name} has no such factory",
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
