"""Names out of a stranger's model in files that a shell or a server reads: they are words, and nothing runs."""

from __future__ import annotations

import re
import subprocess
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowsdeploy_exporters.formats.graph_io import Tensor, shapes
from snowsdeploy_exporters.formats.templates import write_template

HOSTILE = (
    "x; touch hit",
    "$(touch hit)",
    "`touch hit`",
    "a b",
    "it's",
    'quo"te',
    "back\\slash",
    "line\nend; touch hit",
    "--help",
    "*",
    "'; touch hit; '",
    "\x1b[31m",
    "été",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_script_passes_any_name_as_one_word(tmp_path: Path, name: str) -> None:
    (tmp_path / "made").mkdir()
    recorder = tmp_path / "trtexec"
    recorder.write_text(f'#!/bin/bash\nprintf "%s\\0" "$@" >> "{tmp_path}/asked"\n')
    recorder.chmod(0o755)
    script = tmp_path / "made" / "build.sh"
    engine = SimpleNamespace(name="sparse", sparse=True, source=SimpleNamespace(path=Path("model.onnx")))
    inputs = (Tensor(name, 1, (3, 8, 8)),)
    write_template("build.sh.j2", script, engines=[engine], profile=partial(shapes, inputs), batches=(1, 8, 32))
    done = subprocess.run(
        ["bash", str(script)], env={"PATH": "/usr/bin:/bin", "TRTEXEC": str(recorder)}, cwd=tmp_path, check=False
    )
    assert done.returncode == 0
    assert not list(tmp_path.rglob("hit"))
    asked = (tmp_path / "asked").read_bytes().decode().split("\0")
    assert f"--minShapes={name}:1x3x8x8" in asked
    assert f"--shapes={name}:32x3x8x8" in asked


@given(st.text(max_size=20))
def test_a_string_of_a_server_configuration_ends_where_it_should(name: str) -> None:
    from snowsdeploy_exporters.formats.templates import _pbtxt  # noqa: PLC0415 - the filter alone

    quoted = _pbtxt(name)
    assert re.fullmatch(r'"(?:[^"\\\x00-\x1f\x7f-\uffff]|\\[0-7]{3})*"', quoted)
    content = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), quoted[1:-1])
    assert content.encode("latin-1") == name.encode("utf-8", "surrogateescape")
