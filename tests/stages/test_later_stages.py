"""What a run keeps: a later stage renews its own sections, the folder repeats the run, and it can be moved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from snowsdeploy.batch import Batch
from snowsdeploy.data import open as opening
from snowsdeploy.data.open import Source
from snowsdeploy.errors import DataError, OutputError, SourceError
from snowsdeploy.layout.onnx_layout import graph_nodes
from snowsdeploy.progress import NullObserver
from snowsdeploy.report.store import read_report
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.settings.read import read_file
from snowsdeploy.stages import validate as validating
from snowsdeploy.stages.job import run_main_job, version_warnings
from snowsdeploy.stages.later import run_export, run_validate
from snowsdeploy.stages.run_directory import RunDirectory
from snowsdeploy.stages.run_files import load_pruned
from snowsdeploy.tasks.base import Outputs
from snowsdeploy.tasks.evaluate import Run
from snowsdeploy.values import Report
from snowsdeploy_cli.app import app
from snowsdeploy_exporters import OnnxExporter
from tests.cli.conftest import TINY, fill_workplace
from tests.stages.test_job import FACTORY, settings

POLICY = "[gate]\nmax_drop = 100\nmin_coverage = 0.4\n"
QUICK = ("--latency-runs", "5", "--latency-batch", "1", "--effort", "fast")


class Told(NullObserver):
    """Keeps what a user would read."""

    def __init__(self) -> None:
        self.messages, self.warned = list[str](), list[str]()

    def message(self, text: str) -> None:
        self.messages.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with a run that passed by its own policy, made once."""
    folder = tmp_path_factory.mktemp("passed")
    fill_workplace(folder)
    (folder / "policy.toml").write_text(POLICY)
    options = ("--eval-data", "images.npz[::2]", "--precision", "fp32,fp16", "--policy", "policy.toml", "--out", "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(app, ["prune-export", *TINY, *QUICK, *options, "--quiet"])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def run(passed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, copied elsewhere; the current directory is another."""
    shutil.copytree(passed / "run", tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "copy"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("export.json", None, "the directory holds no export"),
        ("export.json", "{}", "what the export left cannot be read"),
        ("model.onnx", None, "an exported file is missing"),
        ("model.onnx", "other", "an exported file has changed since its export"),
        ("prune.json", None, "the directory holds no pruning run"),
        ("prune.json", "{}", "the pruning run is damaged"),
    ],
)
def test_what_is_wrong_with_a_run_is_told_apart(run: Path, name: str, content: str | None, message: str) -> None:
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_text(content, encoding="utf-8")
    with pytest.raises(OutputError, match=message) as refused:
        run_validate(run, {})
    assert all(part and len(part.splitlines()) == 1 for part in (refused.value.seen, refused.value.fix))


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the run directory does not exist"):
        run_validate(tmp_path / "nosuch", {})


def engine_log(run: Path, folder: Path) -> Path:
    (name,) = graph_nodes(run / "model.onnx").products["block"]
    log = folder / "build.log"
    log.write_text(
        f"[I] [TRT] (Sparsity) Found 1 layer(s) eligible to use sparse tactics: {name}\n"
        f"[I] [TRT] (Sparsity) Chose 1 layer(s) using sparse tactics: {name}\n"
    )
    return log


def test_an_engine_is_added_and_everything_else_is_kept(run: Path, tmp_path: Path) -> None:
    before, observer = read_report(run / "report.json"), Told()
    log = str(engine_log(run, tmp_path))
    after = run_validate(run, {"engine_log": f"fp32={log}"}, observer=observer, command="snowsdeploy validate copy")
    assert after.verdict == before.verdict
    assert after.verdict
    for old, new in zip(before.variants, after.variants, strict=True):
        for part in ("accuracy", "parity", "latency", "dense", "sparse"):
            assert getattr(new, part) == getattr(old, part), part
    assert after.variants[0].engine is not None
    assert after.variants[1].engine is None
    assert [(c.stage, c.renewed) for c in after.commands] == [
        ("prune-export", None),
        ("validate", ("layout", "engine")),
    ]
    assert after.commands[0] == before.commands[0]
    assert [text for text in observer.messages if text.startswith("fp32: ")] == [
        "fp32: measured now: layout, engine; kept from the earlier report: parity, accuracy, latency"
    ]
    assert read_report(run / "report.json") == after


def test_what_an_engine_made_of_it_stays_when_the_rest_is_measured_again(run: Path, tmp_path: Path) -> None:
    first = run_validate(run, {"engine_log": f"fp32={engine_log(run, tmp_path)}"})
    again = run_validate(run, {"latency_runs": 6})
    assert again.variants[0].engine == first.variants[0].engine
    assert again.variants[0].sparsity == first.variants[0].sparsity
    assert again.variants[0].latency != first.variants[0].latency
    assert again.variants[0].accuracy == first.variants[0].accuracy
    whole = run_validate(run, {})  # nothing given: all that can be measured
    assert whole.variants[0].engine == first.variants[0].engine
    assert whole.variants[0].latency != again.variants[0].latency
    mine, theirs = whole.variants[0].accuracy, first.variants[0].accuracy  # measured again, on the run's own images
    assert mine is not None
    assert theirs is not None
    assert mine.data.fingerprint == theirs.data.fingerprint
    assert mine.model_copy(update={"data": theirs.data}) == theirs
    assert len(whole.commands) == 1  # calls from Python are no commands


def test_another_policy_judges_again_and_measures_nothing(run: Path, tmp_path: Path) -> None:
    before = read_report(run / "report.json")
    (tmp_path / "strict.toml").write_text("[gate]\nmin_coverage = 0.999\nmax_drop = 100\n")
    judged = run_validate(run, {"policy": tmp_path / "strict.toml"})
    assert judged.variants == before.variants
    assert judged.verdict is not None
    assert judged.verdict.verdict == "fail"
    kept = run_validate(run, {"engine_log": f"fp32={engine_log(run, tmp_path)}"})  # the policy is the run's from now on
    assert kept.verdict is not None
    assert kept.verdict.verdict == "fail"


def test_files_of_a_new_export_are_measured_as_a_whole(run: Path, passed: Path) -> None:
    run_export(run, {"opset": 19}, lambda s: OnnxExporter(s.opset), command="snowsdeploy export copy --opset 19")
    report = run_validate(run, {"latency_runs": 5}, command="snowsdeploy validate copy")
    (variant,) = report.variants
    assert variant.sparse.opset == 19
    assert variant.accuracy is not None
    assert variant.accuracy.data.source == f"{passed.resolve() / 'images.npz'}[::2]"
    assert [c.stage for c in report.commands] == ["prune-export", "export", "validate"]
    again = run_validate(run, {"latency_runs": 6}, command="snowsdeploy validate copy")
    assert [c.stage for c in again.commands] == ["prune-export", "export", "validate", "validate"]


def test_a_report_that_cannot_be_read_is_said_and_replaced(run: Path) -> None:
    (run / "report.json").write_text("{")
    observer = Told()
    report = run_validate(run, {"latency_runs": 5}, observer=observer)
    assert any("is not used" in text for text in observer.warned)
    assert report.variants[0].accuracy is not None


def test_a_run_is_repeated_from_its_folder(passed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(passed)  # the module of the model is found from here
    done = CliRunner().invoke(app, ["prune-export", "--config", "run/config.toml", "--out", str(tmp_path / "again")])
    assert done.exit_code == 0, done.output
    first, again = (load_file(folder / "pruned.safetensors") for folder in (passed / "run", tmp_path / "again"))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    reports = [read_report(folder / "report.json") for folder in (passed / "run", tmp_path / "again")]
    assert reports[0].prune.solver == reports[1].prune.solver
    assert (tmp_path / "again" / "config.toml").read_bytes() == (passed / "run" / "config.toml").read_bytes()


def test_a_complete_run_is_not_replaced_by_a_resumed_one_of_other_settings(
    run: Path, passed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(passed)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    again = ("--config", str(run / "config.toml"), "--out", str(run), "--resume", "--quiet")
    refused = CliRunner().invoke(app, ["prune-export", *again, "--pattern", "1:4", "--samples", "16"])
    assert refused.exit_code == 3, refused.output
    assert "--pattern 1:4, was 2:4" in refused.output.replace("\n", " ")
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    same = CliRunner().invoke(app, ["prune-export", *again])
    assert same.exit_code == 0, same.output


def test_a_log_that_tells_nothing_does_not_replace_what_is_known(run: Path, tmp_path: Path) -> None:
    run_validate(run, {"engine_log": f"fp32={engine_log(run, tmp_path)}"})
    before = (run / "report.json").read_bytes()
    with pytest.raises(SourceError, match="tells nothing of sparse kernels"):
        run_validate(run, {"engine_log": f"fp32={run / 'summary.md'}"})
    assert (run / "report.json").read_bytes() == before


def test_a_precision_that_is_judged_no_more_is_said(run: Path) -> None:
    observer = Told()
    run_export(run, {"precision": "fp16"}, lambda s: OnnxExporter(s.opset), observer=observer)
    assert observer.warned == ["fp32 is not in --precision now: validate will judge without it"]


def test_a_new_precision_is_measured_and_what_is_known_of_the_others_stays(run: Path) -> None:
    before = read_report(run / "report.json")
    run_export(run, {"precision": "fp32,fp16,int8"}, lambda s: OnnxExporter(s.opset))
    observer = Told()
    after = run_validate(run, {"latency_runs": 6}, observer=observer)
    assert [variant.precision for variant in after.variants] == ["fp32", "fp16", "int8"]
    assert after.variants[0].sparse.sha256 == before.variants[0].sparse.sha256
    (kept,) = [text for text in observer.messages if text.startswith("fp32: ")]
    assert kept == "fp32: measured now: latency; kept from the earlier report: layout, parity, accuracy"
    assert after.variants[0].parity == before.variants[0].parity
    assert after.variants[0].latency != before.variants[0].latency
    assert after.variants[2].parity is not None
    accuracies = [variant.accuracy.data.fingerprint for variant in after.variants if variant.accuracy]
    assert len(accuracies) == 3


def test_limits_in_a_settings_file_judge_again_and_measure_nothing(run: Path, tmp_path: Path) -> None:
    before = read_report(run / "report.json")
    (tmp_path / "strict.toml").write_text("[gate]\nmin_coverage = 0.999\nmax_drop = 100\n")
    observer = Told()
    judged = run_validate(run, {}, file=read_file(tmp_path / "strict.toml"), observer=observer, command="validate")
    assert judged.variants == before.variants
    assert judged.environment == before.environment
    assert judged.commands[-1].renewed == ()
    assert judged.verdict is not None
    assert judged.verdict.verdict == "fail"


def test_the_folder_says_what_it_was_made_with(passed: Path) -> None:
    content = read_file(passed / "run" / "config.toml")
    assert content.resolved["newton_steps"] == 0  # what the effort decided
    assert content.values["data"] == str((passed / "images.npz").resolve())
    assert content.policy is not None
    assert content.policy.min_coverage == 0.4
    assert content.versions["torch"] == torch.__version__.partition("+")[0]
    assert version_warnings(content) == ()
    older = replace(content, versions={**content.versions, "torch": "2.0"})
    (text,) = version_warnings(older)
    assert "torch 2.0, here " in text


def test_paths_in_the_folder_are_relative_to_it(run: Path) -> None:
    for name in ("export.json", "report.json", "prune.json"):
        assert "/passed" not in (run / name).read_text().replace("images.npz", "").partition('"environment"')[0], name
    content = json.loads((run / "report.json").read_text())
    assert content["variants"][1]["sparse"]["path"] == "model.fp16.onnx"
    assert read_report(run / "report.json").variants[0].sparse.path == run / "model.onnx"


def test_moved_images_are_named_for_an_export(run: Path, passed: Path, tmp_path: Path) -> None:
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("images.npz", "gone.npz"))

    def exporter(_: object) -> OnnxExporter:
        return OnnxExporter()

    with pytest.raises(DataError, match="images cannot be read"):
        run_export(run, {"precision": "int8"}, exporter)
    shutil.copy(passed / "images.npz", tmp_path / "here.npz")
    files = run_export(run, {"precision": "int8"}, exporter, data=str(tmp_path / "here.npz"))
    assert files.judged[0].precision == "int8"
    with pytest.raises(DataError, match="leaves out images"):
        run_export(run, {"precision": "int8"}, exporter, data=f"{tmp_path / 'here.npz'}[1:]")
    np.savez(tmp_path / "other.npz", x=np.zeros((64, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="are not those") as caught:
        run_export(run, {"precision": "int8"}, exporter, data=str(tmp_path / "other.npz"))
    assert "--data" in str(caught.value)


def test_masks_are_those_of_the_solve_and_not_of_zeros(passed: Path) -> None:
    pruned = load_pruned(RunDirectory(passed / "run"))
    assert pruned.masks.keys() == {"block.weight"}
    mask, weight = pruned.masks["block.weight"], pruned.tensors["block.weight"]
    assert mask.dtype == torch.bool
    assert float(mask.float().mean()) == 0.5
    assert not bool((weight[~mask] != 0).any())


def test_images_are_decoded_once_and_dense_outputs_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_model_for_test.py").write_text(FACTORY)
    rng = np.random.default_rng(0)
    for name, count in (("calibration", 32), ("test", 40)):
        np.savez(tmp_path / f"{name}.npz", x=rng.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    decoded: dict[str, list[int]] = {}
    plain = opening._open

    def counted(name: str, *rest: object) -> Source:
        source = plain(name, *rest)  # type: ignore[arg-type]

        def read(indices: Sequence[int]) -> Tensor:
            decoded.setdefault(name, []).extend(indices)
            return source.read(indices)

        return Source(read, source.size, source.labels, source.identity, source.check)

    ran: list[tuple[str, int]] = []
    run_of = validating._run_of

    def watched(session: OrtSession) -> Run:
        def run(batch: Batch) -> Outputs:
            ran.append((str(session.session._model_path), len(batch)))
            return run_of(session)(batch)

        return run

    monkeypatch.setattr(opening, "_open", counted)
    monkeypatch.setattr(validating, "_run_of", watched)
    report = run_main_job(settings(tmp_path, precision=("fp32", "fp16", "int8"), effort="default"), OnnxExporter())
    assert isinstance(report, Report)
    assert sorted(decoded["calibration.npz"]) == list(range(32))
    assert decoded["test.npz"].count(0) <= 2  # the first is looked at to see how much memory all take
    assert sorted(decoded["test.npz"])[-39:] == list(range(1, 40))
    assert sorted(Path(path).name for path, _ in ran) == [
        "dense.fp16.onnx", "dense.int8.onnx", "dense.onnx", "model.fp16.onnx", "model.int8.onnx", "model.onnx"
    ]  # fmt: skip
