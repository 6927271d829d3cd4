"""What torch logs, warns and prints of its own internals, kept away from the user."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO

_LOGGERS = ("torch.fx.experimental.symbolic_shapes", "torch.export._trace", "torch.export", "torch._dynamo")


@contextmanager
def silent_loggers(*names: str) -> Iterator[None]:
    """Switch loggers off: what they print is raised as well, or is of no use to the user of this tool."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


@contextmanager
def quiet_tracing() -> Iterator[None]:
    """Tracing warns about its own internals; nothing in it is for the user of this tool."""
    with silent_loggers(*_LOGGERS), warnings.catch_warnings(), redirect_stderr(StringIO()):  # it prints graphs too
        warnings.simplefilter("ignore")
        yield
