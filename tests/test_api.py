"""The public face: a module on tensors in one call, every form of model and data, and nothing left behind."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import snowsdeploy
from snowsdeploy import PruneSettings
from snowsdeploy.data.memory import hold
from snowsdeploy.errors import DataError, GraphError, NumericsError, SourceError, UsageError
from snowsdeploy.progress import NullObserver
from snowsdeploy.values import Report
from tests.cli.conftest import shell_environment

QUICK = {"effort": "fast", "latency_runs": 5, "latency_batch": 1, "progress": False}
IMAGES = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 5


class Block(nn.Module):
    """A convolution beside a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.norm(self.conv(x)))


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


@pytest.fixture(scope="module")
def report() -> Report:
    """One run that tests only look at."""
    return snowsdeploy.prune_export(make(), data=IMAGES, eval_data=(IMAGES, LABELS), **QUICK)


def test_one_call_prunes_a_module_on_tensors(report: Report) -> None:
    assert [d.name for d in report.prune.pruned] == ["1.conv"]
    assert report.verdict is not None
    (variant,) = report.variants
    assert variant.accuracy is not None
    assert variant.accuracy.metric is not None
    assert variant.accuracy.metric.dense.items == 24
    assert snowsdeploy.inspect(variant.sparse.path).coverage == pytest.approx(variant.sparsity.coverage)
    assert report.source.format == "module"
    assert report.preprocessing.mean == (0.0, 0.0, 0.0)  # tensors are taken as they are
    assert any("24 images" in text for text in report.warnings)  # judged on what was calibrated on
    (command,) = report.commands
    assert (
        command.command
        == "snowsdeploy.prune_export(<Sequential in memory>, effort='fast', latency_runs=5, latency_batch=1)"
    )


def test_the_module_is_not_changed() -> None:
    module = make().train()
    module[1].conv.weight.requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    snowsdeploy.prune(module, data=IMAGES, effort="fast", progress=False)
    assert module.training
    assert module[1].conv.weight.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_without_out_the_files_go_with_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = snowsdeploy.prune_export(make(), data=IMAGES, **QUICK)
    path = made.variants[0].sparse.path
    copy = made.model_copy(update={"warnings": ()})
    assert onnx.load(path).graph.node
    del made
    assert path.exists()  # the copy has the same files
    del copy
    assert not path.exists()
    with pytest.raises(UsageError):
        snowsdeploy.prune_export(make(), data=IMAGES, exclude="nothing*", **QUICK)
    assert list(tmp_path.glob("snowsdeploy-*")) == []


def test_a_value_with_files_of_its_own_is_compared_and_copied_like_any(report: Report) -> None:
    plain = Report.model_validate(report.model_dump())
    assert plain.model_copy(update={"verdict": None}) == report.model_copy(update={"verdict": None})
    assert copy.deepcopy(report) == report


def test_with_out_it_is_a_run_that_the_command_line_takes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    made = snowsdeploy.prune_export(make(), data=IMAGES, out=run, **QUICK)
    again = snowsdeploy.validate(run, eval_data=(IMAGES, LABELS), latency_runs=5, progress=False)
    assert made.variants[0].accuracy is not None
    assert made.variants[0].accuracy.calibration
    assert made.variants[0].accuracy.metric is None
    assert again.variants[0].accuracy is not None
    assert [c.stage for c in again.commands] == ["prune-export", "validate"]
    files = snowsdeploy.export(run, progress=False, opset=19)
    assert files.fp32.sparse.opset == 19


class Stream(IterableDataset):  # type: ignore[type-arg]  # of pairs
    """Batches without an end."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield IMAGES[:8], LABELS[:8]


FORMS: dict[str, Callable[[], object]] = {
    "tensor": lambda: IMAGES,
    "half": IMAGES.half,
    "samples": lambda: hold((IMAGES, LABELS), option="data"),
    "array": IMAGES.numpy,
    "pair": lambda: (IMAGES, LABELS),
    "array pair": lambda: (IMAGES.numpy(), LABELS.numpy()),
    "data set": lambda: TensorDataset(IMAGES, LABELS),
    "bare data set": lambda: TensorDataset(IMAGES),
    "loader": lambda: DataLoader(TensorDataset(IMAGES, LABELS), batch_size=7),
    "list of batches": lambda: list(IMAGES.split(5)),
    "list of pairs": lambda: [(x, y.tolist()) for x, y in zip(IMAGES.split(6), LABELS.split(6), strict=True)],
    "generator": lambda: (batch for batch in IMAGES.split(9)),
    "endless": Stream,
}


@pytest.mark.parametrize("form", FORMS)
def test_data_comes_in_every_form(form: str) -> None:
    pruned = snowsdeploy.prune(make(), data=FORMS[form](), samples=16, effort="fast", progress=False)
    assert pruned.report.calibration.items == 16
    assert pruned.samples is not None
    images = torch.cat(list(pruned.samples.batches(5)))
    known = IMAGES.half().float() if form == "half" else IMAGES
    assert all(any(torch.equal(image, other) for other in known) for image in images)
    labelled = form in ("samples", "pair", "array pair", "data set", "loader", "list of pairs", "endless")
    assert pruned.report.calibration.labelled is labelled


def test_the_same_tensors_give_the_same_weights_in_every_form() -> None:
    results = [
        snowsdeploy.prune(make(), data=data, effort="fast", progress=False).tensors
        for data in (IMAGES, list(IMAGES.split(5)), DataLoader(TensorDataset(IMAGES), batch_size=7))
    ]
    for other in results[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in results[0].items())


def test_as_many_images_as_asked_for_in_their_order_and_by_the_seed() -> None:
    batches = hold(list(IMAGES.split(9)), option="data", at_most=13)
    assert torch.equal(batches.rows(0, 13), IMAGES[:13])
    assert len(batches) == 13
    chosen = [hold(TensorDataset(IMAGES), option="data", at_most=13, seed=seed).rows(0, 13) for seed in (0, 0, 1)]
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])


def test_settings_come_as_objects_too() -> None:
    given = [PruneSettings(effort="fast", pattern="1:4"), snowsdeploy.ResourceSettings(device="cpu")]
    pruned = snowsdeploy.prune(make(), data=IMAGES, settings=given, progress=False)
    assert (pruned.report.pattern, pruned.report.solver["newton_steps"]) == ("1:4", 0)
    pruned = snowsdeploy.prune(make(), data=IMAGES, settings=given[0], pattern="2:4", progress=False)
    assert pruned.report.pattern == "2:4"  # a name comes before an object
    with pytest.raises(UsageError, match="no settings object"):
        snowsdeploy.prune(make(), data=IMAGES, settings=["fast"], progress=False)


def test_the_callers_random_numbers_go_on_as_they_would() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    module = make()
    torch.set_rng_state(state)
    snowsdeploy.prune(module, data=IMAGES, effort="fast", progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_warnings_are_shown_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    snowsdeploy.prune_export(make(), data=IMAGES, **{**QUICK, "progress": True})
    assert capsys.readouterr().err.strip() == "warning: No --eval-data: accuracy is not measured."


class AnyNumber(nn.Module):
    """Takes its image as one of any number of inputs."""

    def __init__(self) -> None:
        super().__init__()
        for name, child in make().named_children():
            self.add_module(name, child)

    def forward(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        for child in self.children():
            x = child(x)
        return x


def programs() -> dict[str, object]:
    example = (IMAGES[:2],)
    batch = ({0: torch.export.Dim("batch")},)
    return {
        "module in training": make().train(),
        "double": make().double(),
        "program": torch.export.export(make().eval(), example, dynamic_shapes=batch),
        "pruned before": snowsdeploy.prune(make(), data=IMAGES, effort="fast", progress=False).dense,
        "factory": "tests.test_api:make",
        "any number of inputs": AnyNumber(),
        "wrapped": nn.DataParallel(torch.compile(make())),  # type: ignore[arg-type]  # a module, which it hides
    }


@pytest.mark.parametrize(
    "form", ["module in training", "double", "program", "pruned before", "factory", "wrapped", "any number of inputs"]
)
def test_a_model_comes_in_every_form(form: str) -> None:
    found = snowsdeploy.prune(programs()[form], data=IMAGES, effort="fast", permute=False, progress=False)  # type: ignore[arg-type]
    if form != "pruned before":  # whose channels have another order
        expected = snowsdeploy.prune(make(), data=IMAGES, effort="fast", permute=False, progress=False)
        assert torch.equal(found.tensors["1.conv.weight"], expected.tensors["1.conv.weight"])
    assert {name: mask.float().mean() for name, mask in found.masks.items()} == {"1.conv.weight": 0.5}
    assert found.sparse.run(IMAGES[:2])[0].shape == (2, 5)


class Uncopyable(nn.Module):
    """Cannot be copied."""

    def __deepcopy__(self, memo: object) -> None:
        raise RuntimeError("holds a lock")


class Items(Dataset):  # type: ignore[type-arg]  # of pairs
    """The same image and label, twice."""

    def __init__(self, image: object, label: object) -> None:
        self.item = image, label

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> object:
        return self.item


BAD: dict[str, tuple[Callable[[], object], Callable[[], object], type[Exception], str]] = {
    "no model": (lambda: 3, lambda: IMAGES, SourceError, "nothing that can be pruned"),
    "uncopyable": (Uncopyable, lambda: IMAGES, SourceError, "cannot be copied"),
    "no data": (make, lambda: 3, DataError, "data is nothing"),
    "a dict of texts": (make, lambda: {"x": "a"}, DataError, "no tensor"),
    "pixels": (make, lambda: torch.zeros(4, 3, 8, 8, dtype=torch.uint8), DataError, "as the model takes them"),
    "one image": (make, lambda: IMAGES[0], GraphError, "with inputs of 8x8"),
    "empty": (make, lambda: IMAGES[:0], DataError, "no image"),
    "empty list": (make, list, DataError, "no image"),
    "sizes": (make, lambda: [IMAGES, IMAGES[..., :4]], DataError, "differ in size"),
    "nan": (make, lambda: IMAGES * torch.nan, DataError, "NaN or Inf"),
    "labels": (make, lambda: (IMAGES, LABELS[:3]), DataError, "labels of data"),
    "some labels": (make, lambda: [(IMAGES, LABELS), IMAGES], DataError, "only some batches"),
    "texts": (make, lambda: ["a", "b"], DataError, "no tensor"),
    "a data set of pictures": (make, lambda: Items(Image.new("RGB", (8, 8)), 1), DataError, "is no tensor"),
    "a class": (lambda: Block, lambda: IMAGES, SourceError, "nothing that can be pruned"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_said_in_one_message(case: str) -> None:
    model, data, error, message = BAD[case]
    with pytest.raises(error, match=message) as caught:
        snowsdeploy.prune(model(), data=data(), progress=False)  # type: ignore[arg-type]
    assert isinstance(caught.value, snowsdeploy.SnowsDeployError)


@pytest.mark.parametrize("targets", [LABELS.float(), torch.eye(5)[LABELS % 5], LABELS + 90])
def test_targets_that_the_task_is_not_judged_against_are_refused_before_the_solve(targets: torch.Tensor) -> None:
    with pytest.raises(DataError) as caught:
        snowsdeploy.prune_export(make(), data=IMAGES, eval_data=(IMAGES, targets), **QUICK)
    assert caught.value.fix


def test_weights_that_are_no_numbers_and_images_of_another_size_are_refused() -> None:
    module = make()
    module[1].conv.weight.data[0] = torch.nan
    with pytest.raises(NumericsError, match="NaN or Inf"):
        snowsdeploy.prune(module, data=IMAGES, progress=False)
    with pytest.raises(DataError, match="eval_data do not have the model's input size"):
        snowsdeploy.prune_export(make(), data=IMAGES, eval_data=IMAGES[..., :4], **QUICK)
    with pytest.raises(UsageError, match="arch is for a model that is loaded"):
        snowsdeploy.prune(make(), data=IMAGES, arch="resnet18", progress=False)
    with pytest.raises(UsageError, match="no such setting") as caught:
        snowsdeploy.prune(make(), data=IMAGES, newton_step=2)
    assert caught.value.fix == "did you mean newton_steps?"


def test_tensors_need_no_preprocessing_and_files_do(tmp_path: Path) -> None:
    np.savez(tmp_path / "test.npz", x=np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="nothing says how images become"):
        snowsdeploy.prune_export(make(), data=IMAGES, eval_data=tmp_path / "test.npz", **QUICK)
    with pytest.raises(UsageError, match="--uint8-input needs mean"):
        snowsdeploy.prune_export(make(), data=IMAGES, uint8_input=True, **QUICK)
    pruned = snowsdeploy.prune(make(), data=IMAGES, effort="fast", progress=False)
    with pytest.raises(UsageError, match="--uint8-input needs mean"):
        snowsdeploy.export(pruned, out=tmp_path / "run", uint8_input=True, progress=False)
    assert not (tmp_path / "run").exists()
    told = snowsdeploy.prune(make(), data=IMAGES, effort="fast", mean=[0.5] * 3, std=[0.2] * 3, progress=False)
    files = snowsdeploy.export(told, uint8_input=True, progress=False)
    assert files.serving[0].path.is_file()


def test_a_run_of_tensors_goes_on_from_its_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    made = snowsdeploy.prune_export(make(), data=IMAGES, eval_data=(IMAGES, LABELS), out=run, **QUICK)
    with pytest.raises(DataError, match="were in memory"):
        snowsdeploy.export(run, precision="fp32,int8", progress=False)
    with pytest.raises(DataError, match="not those of the pruning run"):
        snowsdeploy.export(run, precision="fp32,int8", data=IMAGES + 1, progress=False)
    kept = snowsdeploy.validate(run, latency_runs=5, progress=False)  # without its images accuracy stays
    assert kept.variants[0].accuracy == made.variants[0].accuracy
    judged = snowsdeploy.validate(run, policy={"min_coverage": 1.0}, progress=False)
    assert judged.verdict is not None
    assert judged.verdict.verdict == "fail"
    assert judged.variants == kept.variants  # limits measure nothing
    assert judged.environment == kept.environment
    assert repr(judged).startswith("<Report of Sequential: fail")
    with pytest.raises(DataError, match="eval_data do not have"):
        snowsdeploy.validate(run, eval_data=IMAGES[..., :4], progress=False)
    files = snowsdeploy.export(run, precision="fp32,int8", data=IMAGES, progress=False)
    assert [pair.precision for pair in files.pairs] == ["fp32", "int8"]


def test_a_report_is_judged_again_without_its_files(report: Report, tmp_path: Path) -> None:
    strict = snowsdeploy.judge(report, {"min_coverage": 1.0})
    assert strict.verdict == "fail"
    assert not strict
    (tmp_path / "report.json").write_text(report.model_dump_json())
    (tmp_path / "policy.toml").write_text("[gate]\nmin_coverage = 1.0\n")
    assert snowsdeploy.judge(tmp_path / "report.json", tmp_path / "policy.toml") == strict
    assert "coverage: fail" in str(strict)


def test_pruned_models_are_exported_in_other_precisions(tmp_path: Path) -> None:
    pruned = snowsdeploy.prune(make(), data=IMAGES, effort="fast", progress=False)
    files = snowsdeploy.export(pruned, precision="fp32,int8", progress=False)
    assert [pair.precision for pair in files.pairs] == ["fp32", "int8"]
    assert files.pairs[1].sparse.path.is_file()
    kept = snowsdeploy.export(pruned, out=tmp_path / "run", progress=False)
    judged = snowsdeploy.validate(tmp_path / "run", eval_data=(IMAGES, LABELS), latency_runs=5, progress=False)
    assert judged.variants[0].sparse.sha256 == kept.fp32.sparse.sha256
    with pytest.raises(UsageError, match="pruned model in memory"):
        snowsdeploy.export(tmp_path / "run", out=tmp_path / "other")


def test_plan_profile_and_compare(report: Report) -> None:
    assert snowsdeploy.plan(make(), data=IMAGES, progress=False).seconds > 0
    paths = (report.variants[0].dense.path, report.variants[0].sparse.path)
    timed = snowsdeploy.profile(*paths, runs=10, progress=False)
    assert [row.name for row in timed.series] == ["dense.onnx", "model.onnx"]
    compared = snowsdeploy.compare(
        make(), data=IMAGES, eval_data=(IMAGES, LABELS), selectors="magnitude", solvers="none,k0", progress=False
    )
    assert [(row.solver, row.problem) for row in compared.runs] == [("none", ""), ("k0", "")]


def test_an_observer_of_ones_own_is_told() -> None:
    class Stages(NullObserver):
        begun: list[str] = []  # noqa: RUF012 - of one object

        def stage(self, name: str, detail: str = "") -> None:
            self.begun.append(name)

    snowsdeploy.prune(make(), data=IMAGES, effort="fast", progress=Stages())
    assert Stages.begun == ["load", "permute", "prune"]


def test_values_print_well(report: Report) -> None:
    assert repr(report).startswith("<Report of Sequential: ")
    assert len(repr(report)) < 200
    page = report._repr_html_()
    assert page.startswith("<iframe srcdoc=")
    assert "&lt;h1&gt;Sequential, 2:4&lt;/h1&gt;" in page
    pruned = snowsdeploy.prune(make(), data=IMAGES, effort="fast", progress=False)
    assert len(repr(pruned)) < 200
    assert len(repr(pruned.dense)) < 600
    assert len(repr(pruned.samples)) < 600


PROBE = """
import json, sys, time
started = time.perf_counter()
import snowsdeploy
seconds = time.perf_counter() - started
names = dir(snowsdeploy)
heavy = [m for m in ("torch", "numpy", "pydantic") if m in sys.modules]
print(json.dumps([seconds, heavy, snowsdeploy.__version__, names]))
"""


def test_importing_it_costs_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=shell_environment(), capture_output=True, text=True, check=True
    )
    seconds, modules, version, names = json.loads(done.stdout)
    assert modules == []
    assert seconds < 1
    assert version == snowsdeploy.__version__
    assert set(snowsdeploy.__all__) <= set(names)


def test_the_public_surface_is_what_it_says() -> None:
    assert len(set(snowsdeploy.__all__)) == len(snowsdeploy.__all__)
    for name in snowsdeploy.__all__:
        value = getattr(snowsdeploy, name)
        assert name == "__version__" or value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'prune_exprot'"):
        snowsdeploy.prune_exprot  # noqa: B018 - a name that is not there
    assert np.array_equal(sorted(snowsdeploy.__all__), sorted(set(snowsdeploy.__all__)))
