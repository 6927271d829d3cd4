"""Formats beside ONNX and files for serving as parts of a run: written whole, listed, removed with the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from snowsdeploy.errors import ExportError, OutputError, SnowsDeployError, UsageError
from snowsdeploy.report.store import read_report
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages.job import run_main_job, run_prune
from snowsdeploy.stages.later import run_export
from snowsdeploy.stages.packages import Contents
from snowsdeploy.stages.run_directory import RunDirectory
from snowsdeploy.stages.run_files import load_export
from snowsdeploy.values import ExportReport
from snowsdeploy_exporters import FORMATS, OnnxExporter
from tests.cli.conftest import NET

ENDS = {"uint8_input": True, "softmax": True, "top_k": 2}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MainJob:
    """A tiny model of the user's and images in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "packaged_net_for_test.py").write_text(NET)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", x=rng.integers(0, 256, (32, 8, 8, 3), dtype=np.uint8), y=rng.integers(0, 5, 32))
    values = {
        "model": "packaged_net_for_test:make",
        "data": "images.npz",
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
        "effort": "fast",
        "latency_batch": (1,),
        "latency_runs": 5,
        "out": tmp_path / "run",
    }
    return read_settings(MainJob, values)


def with_formats(config: MainJob, **options: object) -> MainJob:
    return config.model_copy(update={"format": ("onnx", "tensorrt", "triton", "torch"), **options})


FORMATS_OF_ALL = ("onnx", "tensorrt", "triton", "torch")


def every(**options: object) -> dict[str, object]:
    return {"format": FORMATS_OF_ALL, **options}


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_the_main_job_writes_lists_and_reports_every_format(config: MainJob) -> None:
    report = run_main_job(with_formats(config, precision=("fp32", "int8"), **ENDS), OnnxExporter(), writers=FORMATS)
    run = RunDirectory(config.out)
    written = load_export(run)
    assert read_report(run.report) == report
    assert report.packages == written.packages
    assert [p.format for p in written.packages] == ["tensorrt", "triton", "torch"]
    for package in written.packages:
        assert package.files
        assert all((package.folder / name).is_file() for name in package.files)
    assert any("no engine was built" in note for note in written.packages[0].notes)
    assert [file.path.name for file in written.serving] == ["serving.onnx", "serving.int8.onnx"]
    assert [file.precision for file in report.serving] == ["fp32", "int8"]
    assert "make_serving_int8/1/model.onnx" in written.packages[1].files
    assert "make_sparse/config.pbtxt" in written.packages[1].files


def test_a_precision_that_was_not_asked_for_is_not_packaged(config: MainJob) -> None:
    run_prune(config)
    settings = {"precision": ("fp16",), "format": ("triton",), "softmax": True}
    written = run_export(config.out, settings, lambda _: OnnxExporter(), writers=FORMATS)
    assert names(config.out / "triton") == {
        ".snowsdeploy",
        "README.md",
        *(f"make_{kind}_fp16" for kind in ("dense", "sparse", "serving")),
    }
    assert not (config.out / "serving.onnx").exists()
    assert (config.out / "model.onnx").is_file()
    assert written.serving[0].path == config.out / "serving.fp16.onnx"


def test_a_new_export_removes_what_the_last_one_left(config: MainJob) -> None:
    run_prune(config)
    before = names(config.out)
    run_export(config.out, every(precision=("fp32", "fp16"), **ENDS), lambda _: OnnxExporter(), writers=FORMATS)
    run_export(config.out, {}, lambda _: OnnxExporter())
    assert names(config.out) == {*before, "dense.onnx", "model.onnx", "export.json"}
    assert load_export(RunDirectory(config.out)).packages == ()


def test_a_moved_run_is_found_and_a_changed_serving_file_is_not_taken(config: MainJob, tmp_path: Path) -> None:
    run_prune(config)
    run_export(config.out, every(**ENDS), lambda _: OnnxExporter(), writers=FORMATS)
    moved = config.out.rename(tmp_path / "moved")
    found = load_export(RunDirectory(moved))
    assert [p.folder for p in found.packages] == [moved / "tensorrt", moved / "triton", moved / "torch"]
    serving = found.serving[0].path
    assert serving == moved / "serving.onnx"
    serving.write_bytes(serving.read_bytes() + b"\0")
    with pytest.raises(OutputError, match="changed since its export"):
        load_export(RunDirectory(moved))


def test_all_exports_go_when_one_format_fails(config: MainJob) -> None:
    def fail(contents: Contents, folder: Path) -> Sequence[str]:
        assert isinstance(contents.files, ExportReport)
        (folder / "half.txt").touch()
        raise ExportError("no")

    run_prune(config)
    before = names(config.out)
    with pytest.raises(ExportError, match="no"):
        run_export(config.out, every(**ENDS), lambda _: OnnxExporter(), writers={**FORMATS, "torch": fail})
    assert names(config.out) == before


def test_a_folder_of_the_users_is_not_overwritten(config: MainJob) -> None:
    (config.out / "torch").mkdir(parents=True)
    (config.out / "torch" / "precious.txt").write_text("mine")
    forced = with_formats(config, force=True)
    with pytest.raises(OutputError, match="--format torch would overwrite"):
        run_main_job(forced, OnnxExporter(), writers=FORMATS)
    assert names(config.out) == {"torch"}
    run_main_job(forced.model_copy(update={"format": ("onnx", "triton")}), OnnxExporter(), writers=FORMATS)
    run_prune(forced)
    assert (config.out / "torch" / "precious.txt").read_text() == "mine"
    assert not (config.out / "triton").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"top_k": 6}, "--top-k exceeds"), ({"format": ("triton",)}, "--format needs a writer")],
)
def test_what_cannot_be_written_is_known_before_pruning(
    config: MainJob, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        run_main_job(config.model_copy(update=options), OnnxExporter())
    assert isinstance(caught.value, SnowsDeployError)
    assert not config.out.exists()


def test_output_ends_need_scores(config: MainJob, tmp_path: Path) -> None:
    (tmp_path / "packaged_net_for_test_two.py").write_text(NET.replace(".mean((2, 3))", ".flatten(2).mT"))
    maps = config.model_copy(update={"model": "packaged_net_for_test_two:make", "softmax": True})
    with pytest.raises(UsageError, match="scores classes") as caught:
        run_main_job(maps, OnnxExporter())
    assert "3 axes" in str(caught.value)
