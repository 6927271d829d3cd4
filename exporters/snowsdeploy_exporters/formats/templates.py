"""Text files from the templates of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2


def write_template(name: str, path: Path, **values: Any) -> None:  # noqa: ANN401 - whatever the template shows
    """Render a template into a file; a name that is not given is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("snowsdeploy_exporters.formats"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    path.write_text(environment.get_template(name).render(**values), encoding="utf-8")
