"""`package.module:factory` -> module, found from the current directory as application servers do."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from snowsdeploy.errors import SourceError


def call_factory(text: str, arguments: Mapping[str, Any], *, option: str) -> nn.Module:
    """Import and call a user's factory.

    Args:
        text: `package.module:factory`.
        arguments: Keyword arguments of the factory.
        option: The option it was given by, for messages.

    Raises:
        SourceError: It cannot be imported, raises, or returns no module.
    """
    module_name, _, attribute = text.partition(":")
    with _current_directory_first():
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise SourceError(
                f"{option}: the module cannot be imported",
                seen=f"{module_name}: {error}",
                allowed="package.module:factory, importable from the current directory",
                fix=f"run from the folder that holds {module_name.partition('.')[0]}.py",
            ) from error
        factory = getattr(module, attribute, None)
        if not callable(factory):
            names = [n for n in dir(module) if callable(getattr(module, n)) and not n.startswith("_")]
            raise SourceError(
                f"{option}: {module_name} has no such factory", seen=attribute, allowed=", ".join(names[:12])
            )
        try:
            result = factory(**arguments)
        except Exception as error:  # the user's code may raise anything
            raise SourceError(
                f"{option}: the factory {text} raised {type(error).__name__}",
                seen=str(error)[:200],
                fix="check --model-arg",
            ) from error
    if not isinstance(result, nn.Module):
        raise SourceError(
            f"{option}: the factory returned no torch.nn.Module", seen=type(result).__name__, fix=f"check {text}"
        )
    return result


@contextmanager
def _current_directory_first() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
