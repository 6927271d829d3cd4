"""`module:factory` -> the data set, loader or batches that the user's own code makes."""

from __future__ import annotations

import re
from pathlib import Path

from snowsdeploy.errors import DataError
from snowsdeploy.user_code import UserCodeError, call_user_code

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_factory(text: str) -> bool:
    """Whether a data source names code: `module:factory`, and no file."""
    return bool(_FACTORY.fullmatch(text)) and not Path(text).exists()


def call_data_factory(text: str, option: str) -> object:
    """Import and call it, without arguments.

    Raises:
        DataError: It cannot be imported, or raises.
    """
    try:
        return call_user_code(text, {})
    except UserCodeError as error:
        raise DataError(f"{option}: {error.what}", seen=error.seen, allowed=error.allowed, fix=error.fix) from error
