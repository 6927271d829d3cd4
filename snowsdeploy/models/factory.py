"""`package.module:factory` -> module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from snowsdeploy.errors import SourceError
from snowsdeploy.models.unwrap import unwrapped
from snowsdeploy.user_code import UserCodeError, call_user_code


def call_factory(text: str, arguments: Mapping[str, Any], *, option: str) -> nn.Module:
    """Import and call a user's factory.

    Args:
        text: `package.module:factory`.
        arguments: Keyword arguments of the factory.
        option: The option it was given by, for messages.

    Raises:
        SourceError: It cannot be imported, raises, or returns no module.
    """
    try:
        result = call_user_code(text, arguments, fix="check --model-arg")
    except UserCodeError as error:
        raise SourceError(f"{option}: {error.what}", seen=error.seen, allowed=error.allowed, fix=error.fix) from error
    if not isinstance(result, nn.Module):
        raise SourceError(
            f"{option}: the factory returned no torch.nn.Module",
            seen=f"{text} returned {type(result).__name__}",
            allowed="an instance of torch.nn.Module",
            fix=f"let {text} return the module itself",
        )
    return unwrapped(result)
