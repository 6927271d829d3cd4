"""Values that no setting takes: each is exit code 2, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from snowsdeploy.errors import UsageError
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.profile import ProfileSettings
from snowsdeploy.settings.read import load_policy, read_file, read_settings

MAIN = {"model": "net.pt", "data": "d.npz", "out": "out"}

REFUSED: list[tuple[str, Any]] = [
    *(("mean", text) for text in ("nan", "inf,0,0", "-inf", [float("nan")] * 3, [True, False, True])),
    *(("std", text) for text in ("inf", "nan", "0", "-1")),
    *(("crop_pct", value) for value in ("nan", True, "inf")),
    *(("samples", value) for value in (True, False, 0, -1, 1.5, "nan")),
    *(
        ("input_size", text)
        for text in ("4,0,0", "3,-8,-8", "0x8", "3,٨,٨", "3,1_0,8", "3,8", "3,99999999999999999999,8")
    ),
    *(("input", {"x": text}) for text in ("0", "3,-1", "3,,4", "٣", "1_0", "9" * 5000)),
    *(("dynamic", text) for text in ("x:٢", "height=٢..٤", "x:0")),
    *(("device", text) for text in ("cuda:99999999999999999999", "cuda:٢", "cuda:-1", "tpu")),
    ("model_arg", ["x={[]}"]),
    ("provider_option", {"a": {"b": 1}}),
    ("provider_option", {"a": [1]}),
    ("allow_pickle", "yes"),
    ("allow_pickle", 1),
]


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_job_refuses(name: str, value: object) -> None:
    with pytest.raises(UsageError):
        read_settings(MainJob, MAIN | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch", "0"),
        ("batch", "-1"),
        ("batch", True),
        ("batch", "nan"),
        ("seed", "-1"),
        ("seed", True),
        ("runs", "inf"),
        ("axis", ["height=٢"]),
        ("axis", ["height=0"]),
    ],
)
def test_profile_refuses(name: str, value: object) -> None:
    with pytest.raises(UsageError):
        read_settings(ProfileSettings, {name: value})


@pytest.mark.parametrize("text", ["٢:٤", "٨٠%", "nan%", "4:2", "0:4"])
def test_patterns(text: str) -> None:
    with pytest.raises(UsageError):
        Pattern.parse(text)


@pytest.mark.parametrize(
    "line", ["samples = true", "mean = [nan, nan, nan]", "std = [inf, 1, 1]", "[provider_option]\na = {b = 1}"]
)
def test_a_file_of_settings(tmp_path: Path, line: str) -> None:
    (tmp_path / "c.toml").write_text(line)
    with pytest.raises(UsageError):
        read_settings(MainJob, MAIN, read_file(tmp_path / "c.toml"))


@pytest.mark.parametrize(
    "content", [b"a = " + b"[" * 10**5, b"\xff\xfe", b"a = 1" + b"0" * 5000, b"samples = 1\nsamples = 2"]
)
def test_files_that_are_no_toml(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.toml").write_bytes(content)
    for read in (read_file, load_policy):
        with pytest.raises(UsageError):
            read(tmp_path / "c.toml")


@pytest.mark.parametrize(
    "line", ["min_speedup = true", "min_speedup = inf", "strict_intervals = 'yes'", "min = {top1 = nan}"]
)
def test_a_policy(tmp_path: Path, line: str) -> None:
    (tmp_path / "p.toml").write_text(f"[gate]\n{line}\n")
    with pytest.raises(UsageError):
        load_policy(tmp_path / "p.toml")
