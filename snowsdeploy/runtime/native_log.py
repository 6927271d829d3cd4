"""What native code prints: ONNX Runtime and TensorRT write to the process' standard error, past Python."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STDERR = 2


@contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Everything that the process writes to file descriptor 2, told by the function that is yielded."""
    sys.stderr.flush()
    saved = os.dup(_STDERR)
    with tempfile.TemporaryFile() as stream:
        os.dup2(stream.fileno(), _STDERR)

        def text() -> str:
            stream.seek(0)
            return stream.read().decode("utf-8", errors="replace")

        try:
            yield text
        finally:
            sys.stderr.flush()
            os.dup2(saved, _STDERR)
            os.close(saved)
