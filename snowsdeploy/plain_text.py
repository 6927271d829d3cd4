r"""Text from outside (names in models, files, exceptions of libraries) -> text that only says something.

Values keep what they were given; what shows them passes it through here: the terminal, CI servers, Markdown, JUnit,
HTML and plots. A character that acts instead of being read is shown by its escape, such as `\x1b` or `\u202e`.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_BLANKS = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
# Cc: C0, DEL, C1; Cf: bidi, joiners, tags; Cs: bytes of names that are no UTF-8; Zl, Zp: further ends of lines.
_ACTIVE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_COMMAND = re.compile(r"^(\s*):(?=:)", re.MULTILINE)  # ::error::, a line's first text
_OLD_COMMAND = re.compile(r"#(?=#[\w.-]*\[)")  # ##[error], ##vso[, ##teamcity[: anywhere in a line
_SURROGATE = re.compile("[\ud800-\udfff]")


def _acts(character: str) -> bool:
    return unicodedata.category(character) in _ACTIVE or (ord(character) & 0xFFFE) == 0xFFFE  # those XML forbids


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class _Escapes(dict[int, str]):
    """Code points -> how they are shown, filled as texts need them."""

    def __missing__(self, code: int) -> str:
        self[code] = shown = _escaped(chr(code)) if _acts(chr(code)) else chr(code)
        return shown


_ESCAPES, _ESCAPES_IN_LINES = _Escapes(), _Escapes({ord("\n"): "\n"})


def plain(text: str) -> str:
    """One line without characters that act: ends of lines and tabs become a space, others their escapes."""
    return text if text.isascii() and text.isprintable() else _BLANKS.sub(" ", text).translate(_ESCAPES)


def plain_lines(text: str) -> str:
    """As `plain`, for a text of several lines, none of which is a command to a CI server."""
    text = "\n".join(line.expandtabs() for line in text.replace("\r\n", "\n").split("\n"))
    return without_commands(escaped_lines(text))


def escaped_lines(text: str) -> str:
    """A text of several lines whose characters only say something."""
    return text.translate(_ESCAPES_IN_LINES)


def without_commands(text: str) -> str:
    """Lines that GitHub, Azure and TeamCity do not read as commands: a space parts what would begin one."""
    return _OLD_COMMAND.sub("# ", _COMMAND.sub(r"\1: ", text))


def encodable(value: Any) -> Any:  # noqa: ANN401 - what JSON or TOML may hold
    """What UTF-8 can hold: bytes of file names that are no UTF-8 become escapes, in texts, keys, lists and dicts."""
    if isinstance(value, str):
        return _SURROGATE.sub(lambda found: _escaped(found[0]), value)
    if isinstance(value, Mapping):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encodable(item) for item in value]
    return value


def inert_json(text: str) -> str:
    """The same JSON where no character acts on a terminal and no line is a command to a CI server."""
    shown = "".join(_json_escape(c) if c != "\n" and _acts(c) else c for c in text) if not text.isascii() else text
    return _OLD_COMMAND.sub(r"\\u0023", shown.replace("\x7f", r"\u007f"))


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


_MARKDOWN = re.compile(
    r"""
    (?P<interval> \[ [-+.,\de%\x20]*\d[-+.,\de%\x20]* \] (?![(\[:]) )   # [89.1, 92.4] is no link, and reads better
    | (?P<item> ^[-+=]+(?=\s|[-+=]|$) ) | (?P<number> ^\d{1,9}[.)](?=\s|$) )
    | (?P<rest> [\\`*|\[\]#$<&~] | (?<!-)> | (?<![^\W_])_ | _(?![^\W_]) | (?<!\w)@ | :(?=//) | ^: | (?<=www)\. )
    """,
    re.VERBOSE | re.IGNORECASE,
)


def markdown(text: str) -> str:
    """Text in Markdown, also in a table: no heading, link, image, code, HTML, mention or formula."""

    def entities(found: re.Match[str]) -> str:
        if found["interval"]:
            return found[0]
        return "".join(c if c.isdecimal() else html.escape(c) if c in "<>&" else f"&#{ord(c)};" for c in found[0])

    return _MARKDOWN.sub(entities, plain(text).strip())
