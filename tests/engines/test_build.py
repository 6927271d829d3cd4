"""What native code prints while an engine is built; the provider is a stand-in, as no GPU is needed to print."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snowsdeploy.engines import build as engine_build
from snowsdeploy.engines.build import build_account
from snowsdeploy.runtime.native_log import captured_stderr
from snowsdeploy.settings.runtime import RuntimeSettings
from tests.engines.tensorrt_texts import ONNX_RUNTIME


def test_what_is_written_past_python_is_captured_and_then_no_more(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_stderr() as text:
        os.write(2, b"native \xff\n")
        assert "native" in text()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_standard_error_comes_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="inside"), captured_stderr():
        raise ValueError("inside")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_a_provider_that_builds_no_engine_says_nothing() -> None:
    assert build_account(Path("absent.onnx"), RuntimeSettings()) is None


def test_the_engine_is_built_anew_and_its_log_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[tuple[RuntimeSettings, bool]] = []

    class Session:
        @classmethod
        def open(cls, path: Path, runtime: RuntimeSettings, *, verbose: bool) -> Session:
            opened.append((runtime, verbose))
            return cls()

        def random_inputs(self, batch: int, axes: Mapping[str, int]) -> Any:
            return np.zeros((batch, 1))

        def run(self, images: Any) -> None:
            os.write(2, ONNX_RUNTIME.encode())

    monkeypatch.setattr(engine_build, "OrtSession", Session)
    runtime = RuntimeSettings(provider="tensorrt", engine_cache=tmp_path, provider_option={"device_id": "1"})
    account = build_account(Path("model.onnx"), runtime)
    assert account is not None
    assert account.log is not None
    assert account.log.passes
    ((found, verbose),) = opened
    assert verbose
    assert found.engine_cache is None
    assert found.provider_option == {"device_id": "1", "trt_detailed_build_log": "1"}
