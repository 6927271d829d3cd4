"""Text files from the templates of this package; names out of a model are quoted for what reads them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import jinja2


def write_template(name: str, path: Path, **values: Any) -> None:  # noqa: ANN401 - whatever the template shows
    """Render a template into a file; a name that is not given is an error.

    Filters: `sh` quotes a word of a shell script, `pbtxt` a string of protobuf's text format.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("snowsdeploy_exporters.formats"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"sh": lambda value: shlex.quote(str(value)), "pbtxt": _pbtxt}
    path.write_text(environment.get_template(name).render(**values), encoding="utf-8")


def _pbtxt(value: object) -> str:
    """With its quotes, every byte that is no plain character as an octal escape."""
    content = str(value).encode("utf-8", "surrogateescape")
    plain = (chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else f"\\{b:03o}" for b in content)
    return f'"{"".join(plain)}"'
