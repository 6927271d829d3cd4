"""A fault of native code ends a process that was made for it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from snowsdeploy.runtime import survival
from snowsdeploy.settings.runtime import RuntimeSettings


def write(path: Path, operator: str = "Relu") -> Path:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_files_that_run_or_only_raise_do_not_crash(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no model")
    files = [write(tmp_path / "good.onnx"), damaged, tmp_path / "missing.onnx"]
    assert survival.native_crashes(files, RuntimeSettings()) == {}


def test_each_file_that_ends_the_process_is_named_with_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fatal = {"b.onnx": "SIGSEGV", "c.onnx": "SIGABRT"}
    end = f"""
    import os, signal
    if (name := os.path.basename(file)) in {fatal!r}:
        os.kill(os.getpid(), getattr(signal, {fatal!r}[name]))
"""
    program = survival._PROGRAM.replace("    try:\n", f"{end}    try:\n", 1)
    monkeypatch.setattr(survival, "_PROGRAM", program)
    files = [write(tmp_path / f"{name}.onnx") for name in "abcd"]
    found = survival.native_crashes(files, RuntimeSettings())
    assert found == {files[1]: "segmentation fault", files[2]: "aborted"}


def test_engines_are_not_built_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survival, "_tried", lambda *_: pytest.fail("a process was started"))
    assert survival.native_crashes([tmp_path / "a.onnx"], RuntimeSettings(provider="tensorrt")) == {}
