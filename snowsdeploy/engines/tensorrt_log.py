"""TensorRT's build log -> which layers it found eligible for sparse tactics, and for which it chose one.

TensorRT 10 writes

    (Sparsity) Found 3 layer(s) eligible to use sparse tactics: a, b + c, d
    (Sparsity) Chose 1 layer(s) using sparse tactics: b + c

and TensorRT 8 wrote

    (Sparsity) Layers eligible for sparse math: a, b + c, d
    (Sparsity) TRT inference plan picked sparse implementation for layers: b + c

behind the prefix of whoever writes the log: trtexec, the builder's logger, or ONNX Runtime. A pair is written for each
engine and each pass of tactic selection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_MARK = "(Sparsity)"
_FOUND = re.compile(
    r"\(Sparsity\) (?:Found (?P<count>\d+) layer\(s\) eligible to use sparse tactics|Layers eligible for sparse math)"
    r"(?::(?P<names>.*)|\.?\s*$)"
)
_CHOSEN = re.compile(
    r"\(Sparsity\) (?:Chose (?P<count>\d+) layer\(s\) using sparse tactics"
    r"|TRT inference plan picked sparse implementation for layers)(?::(?P<names>.*)|\.?\s*$)"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# A program with a logger of its own may put the place in ONNX Runtime's source behind the message.
_PLACE = re.compile(r"\s*\[\w*execution_provider\w*\.\w+:\d+[^\]]*\]\s*$")
_NEW_LINE = re.compile(
    r"\s*(?:$|\[|&&&&|=|\d{4}-\d\d-\d\d|[VIWEF] onnxruntime|VERBOSE|INFO|WARNING|ERROR|\(Sparsity\))"
)
_WRAPPED_FROM = 60  # columns: a shorter line was not broken by a terminal
_VERBOSE = re.compile(r"\[V\]|\bVERBOSE\b|\[V:onnxruntime")


@dataclass(frozen=True)
class Listing:
    """The layers of one line.

    Attributes:
        names: The engine's names.
        count: How many the line counts; None where the wording has no count.
    """

    names: tuple[str, ...]
    count: int | None = None

    @property
    def complete(self) -> bool:
        """Whether every layer that was counted is named; a line may be cut, or give the count alone."""
        return self.count is None or self.count == len(self.names)


@dataclass(frozen=True)
class SparsityPass:
    """What one pass of tactic selection found and chose; None where its line is missing."""

    found: Listing | None
    chosen: Listing | None


@dataclass(frozen=True)
class BuildLog:
    """All passes of a log, in order.

    Attributes:
        passes: Empty when the log says nothing of sparsity, which does not mean that nothing is sparse.
        reason: Why it says nothing.
    """

    passes: tuple[SparsityPass, ...]
    reason: str = ""


def parse_log(text: str) -> BuildLog:
    """Read every line on sparsity.

    Args:
        text: A build log of TensorRT, whoever wrote it; other lines are passed over.
    """
    passes: list[SparsityPass] = []
    for line in _sparsity_lines(text):
        if match := _FOUND.search(line):
            passes.append(SparsityPass(_listing(match), None))
        elif match := _CHOSEN.search(line):
            if passes and passes[-1].chosen is None:
                passes[-1] = SparsityPass(passes[-1].found, _listing(match))
            else:
                passes.append(SparsityPass(None, _listing(match)))
    return BuildLog(tuple(passes), "" if passes else _reason(text))


def split_names(text: str) -> tuple[str, ...]:
    """Names between commas; a comma inside brackets, as in `PWN(a, b)`, belongs to the name."""
    names, depth = [""], 0
    for character in text:
        depth = max(0, depth + (character in "([{") - (character in ")]}"))
        if character == "," and depth == 0:
            names.append("")
        else:
            names[-1] += character
    return tuple(name.strip() for name in names if name.strip())


def _listing(match: re.Match[str]) -> Listing:
    count = match["count"]
    return Listing(split_names(match["names"] or ""), None if count is None else int(count))


def _sparsity_lines(text: str) -> Iterator[str]:
    """Lines with the mark, without colours and places, each with the lines into which a terminal broke it."""
    lines = [_PLACE.sub("", _COLOUR.sub("", line)) for line in text.splitlines()]
    for index, line in enumerate(lines):
        if _MARK in line:
            whole = line
            for place in range(index + 1, len(lines)):
                if not _continues(whole, lines[place - 1], lines[place]):
                    break
                whole += lines[place]
            yield whole


def _continues(whole: str, before: str, line: str) -> bool:
    """Whether a terminal broke a line here: it was full, and what follows is the wording's rest or names alone."""
    if len(before) < _WRAPPED_FROM or _NEW_LINE.match(line):
        return False
    inside_the_names = bool(_FOUND.search(whole) or _CHOSEN.search(whole))
    return not (inside_the_names and any(re.search(r"\S\s+\S", part) for part in re.split(r"[,+|]", line)))


def _reason(text: str) -> str:
    if not text.strip():
        return "the log is empty"
    if re.search(r"\bSparsity: Disabled\b", text, re.IGNORECASE):
        return "the engine was built with sparsity off: build it with --sparsity=enable"
    if not _VERBOSE.search(text):
        return "the log has neither a line on sparsity nor verbose lines: build with --sparsity=enable --verbose"
    return "the log has no line on sparsity: build with --sparsity=enable, and not from an engine cache"
