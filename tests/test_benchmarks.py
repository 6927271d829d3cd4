"""Benchmarks that need a machine which is not here: the same lines on a CPU, with a small model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import solve


def test_the_solve_on_a_gpu_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = ["--model", "test_resnet", "--size", "32", "--device", "cpu", "--images", "6", "--block-images", "4"]
    what = ["--only", "layer2.*", "--block", "layer2.*", "--products", "float32;bfloat16"]
    monkeypatch.setattr(sys, "argv", ["solve", *where, *what, "--out", str(tmp_path)])
    solve.main()
    rows = json.loads((tmp_path / "solve.json").read_text())["rows"]
    assert [row["row"] for row in rows] == ["float32", "bfloat16", "one block, cpu against cpu"]
    assert rows[0]["products"] > 0
    assert rows[0]["planned_seconds"] > 0
    assert rows[-1]["weights_with_another_mask"] == rows[-1]["largest_error"] == 0
    assert f"| float32 | {rows[0]['layers']} | 6 |" in (tmp_path / "solve.md").read_text()
