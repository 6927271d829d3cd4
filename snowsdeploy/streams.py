"""A text stream that never fails: what it cannot encode is escaped, and a reader that has gone is no error."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import TextIO

from snowsdeploy.plain_text import plain_lines, without_commands


class PlainStream(io.TextIOBase):
    """Around a standard stream, for what people and CI servers read.

    No line is a command to a CI server, whoever wrote it. Colours and bars reach a terminal alone.

    Args:
        stream: None where there is none; then everything is dropped.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read only there too
        """Of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether somebody looks at it."""
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        """Of the stream."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def writable(self) -> bool:
        """It always takes text."""
        return True

    def write(self, text: str) -> int:
        """Write what the stream can take."""
        shown = without_commands(text) if self.isatty() else plain_lines(text.replace("\r", "\n"))
        shown = shown.encode(self.encoding, "backslashreplace").decode(self.encoding)
        if self._stream is not None:
            try:
                self._stream.write(shown)
            except (OSError, ValueError):  # a full disk, a closed pipe, a closed stream
                self._give_up()
        return len(text)

    def flush(self) -> None:
        """Send what was written."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._give_up()

    def _give_up(self) -> None:
        """Nobody reads it any more; the interpreter must not fail on what is left when it ends."""
        stream, self._stream = self._stream, None
        with suppress(OSError, ValueError, AttributeError):
            if stream is not None:
                sink = os.open(os.devnull, os.O_WRONLY)
                os.dup2(sink, stream.fileno())
                os.close(sink)


def plain_stream(stream: TextIO | None) -> PlainStream:
    """The stream as a `PlainStream`, itself if it is one."""
    return stream if isinstance(stream, PlainStream) else PlainStream(stream)
