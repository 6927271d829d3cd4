"""The script that stands in for engines, run with a trtexec that writes down what it was asked; a made TensorRT."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from snowsdeploy.errors import ExportError
from snowsdeploy.stages.packages import Contents
from snowsdeploy_exporters.formats import tensorrt_build
from snowsdeploy_exporters.formats.tensorrt import SCRIPT, write_tensorrt
from tests.exporters.contents import make_contents
from tests.nets import TinyCNN, make_program

ENGINES = ("dense", "sparse-disabled", "sparse", "dense.fp16", "sparse-disabled.fp16", "sparse.fp16")


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    torch.manual_seed(0)
    return make_contents(make_program(TinyCNN()), tmp_path_factory.mktemp("run"), ("fp32", "fp16"))


@pytest.fixture
def folder(contents: Contents, tmp_path: Path) -> Path:
    """An empty package folder in a copy of the run."""
    run = contents.files.fp32.sparse.path.parent
    shutil.copytree(run, tmp_path / "a run")
    (tmp_path / "a run" / "tensorrt").mkdir()
    return tmp_path / "a run" / "tensorrt"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


TRTEXEC = """#!{python}
import json, pathlib, sys
arguments = dict(a.lstrip("-").partition("=")[::2] for a in sys.argv[1:])
with open({record!r}, "a") as stream:
    stream.write(json.dumps(arguments) + "\\n")
source = arguments.get("onnx") or arguments["loadEngine"]
assert pathlib.Path(source).is_file(), source
for option in ("saveEngine", "exportLayerInfo", "exportTimes"):
    if option in arguments:
        pathlib.Path(arguments[option]).write_text("x")
print("verbose")
sys.exit({code})
"""


def run_script(folder: Path, code: int = 0) -> tuple[subprocess.CompletedProcess[str], list[dict[str, str]]]:
    record, program = folder.parent.parent / "asked.jsonl", folder.parent.parent / "my trtexec"
    record.touch()
    program.write_text(TRTEXEC.format(python=sys.executable, record=str(record), code=code))
    program.chmod(0o755)
    environment = {**os.environ, "TRTEXEC": str(program)}
    done = subprocess.run([str(folder / SCRIPT)], env=environment, capture_output=True, text=True, cwd="/", check=False)
    return done, [json.loads(line) for line in record.read_text().splitlines()]


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_a_script_asks_trtexec_for_every_engine(contents: Contents, folder: Path) -> None:
    (note,) = write_tensorrt(contents, folder)
    assert "no engine was built: this machine has no NVIDIA GPU" in note
    done, asked = run_script(folder)
    assert done.returncode == 0, done.stderr
    builds = {Path(a["saveEngine"]).name: a for a in asked if "onnx" in a}
    assert list(builds) == [f"{name}.engine" for name in ENGINES]
    for name in ENGINES:
        build = builds[f"{name}.engine"]
        suffix = ".fp16" if name.endswith("fp16") else ""
        assert Path(build["onnx"]).name == f"{'dense' if name.startswith('dense') else 'model'}{suffix}.onnx"
        assert build["sparsity"] == ("enable" if name in ("sparse", "sparse.fp16") else "disable")
        assert {"stronglyTyped", "verbose", "skipInference"} <= build.keys()
        assert build["profilingVerbosity"] == "detailed"
        shapes = [build[f"{kind}Shapes"] for kind in ("min", "opt", "max")]
        assert shapes == ["input:1x3x8x8", "input:8x3x8x8", "input:32x3x8x8"]
        assert (folder / f"{name}.log").read_text() == "verbose\n"
        assert (folder / f"{name}.layers.json").is_file()
    timed = [a for a in asked if "loadEngine" in a]
    assert len(timed) == 3 * len(ENGINES)
    assert all({"useCudaGraph", "noDataTransfers", "exportTimes"} <= a.keys() for a in timed)
    assert {a["shapes"] for a in timed} == set(shapes)


@pytest.mark.usefixtures("no_gpu")
def test_the_script_stops_at_the_first_failure_and_shows_the_log(contents: Contents, folder: Path) -> None:
    write_tensorrt(contents, folder)
    done, asked = run_script(folder, code=1)
    assert done.returncode != 0
    assert len(asked) == 1
    assert "verbose" in done.stderr
    assert "dense.log" in done.stderr


@pytest.mark.usefixtures("no_gpu")
def test_the_script_passes_its_linter(contents: Contents, folder: Path) -> None:
    write_tensorrt(contents, folder)
    subprocess.run(["bash", "-n", str(folder / SCRIPT)], check=True)
    linter = shutil.which("shellcheck") or pytest.skip("shellcheck is not installed")
    subprocess.run([linter, str(folder / SCRIPT)], check=True)


def test_a_gpu_without_the_package_is_not_silent(
    contents: Contents, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    (note,) = write_tensorrt(contents, folder)
    assert "the package tensorrt does not import" in note
    assert (folder / SCRIPT).is_file()


class Made:
    """TensorRT's module as far as it is used, with a record of what it was asked."""

    def __init__(self, *, parses: bool = True, builds: bool = True) -> None:
        self.builds: list[dict[str, object]] = []
        self._parses, self._builds = parses, builds

    def module(self) -> ModuleType:
        module = ModuleType("tensorrt")
        module.ILogger = type("ILogger", (), {})
        module.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        module.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
        module.BuilderFlag = SimpleNamespace(SPARSE_WEIGHTS="sparse")
        module.LayerInformationFormat = SimpleNamespace(JSON="json")
        module.Builder, module.OnnxParser, module.Runtime = self._builder, self._parser, self._runtime
        return module

    def _builder(self, logger: object) -> SimpleNamespace:
        asked: dict[str, object] = {"flags": [], "shapes": ()}
        self.builds.append(asked)
        image = SimpleNamespace(name="input", shape=(-1, 3, 8, 8))
        config = SimpleNamespace(set_flag=asked["flags"].append, add_optimization_profile=lambda profile: None)

        def create_network(flags: int) -> SimpleNamespace:
            asked["network"] = flags
            return SimpleNamespace(get_input=lambda index: image, num_inputs=1)

        def build(network: object, config: SimpleNamespace) -> bytes | None:
            asked["verbosity"] = config.profiling_verbosity
            logger.log(SimpleNamespace(name="VERBOSE"), "(Sparsity) Chose 1 layer(s)")
            return b"plan" if self._builds else None

        return SimpleNamespace(
            create_network=create_network,
            create_builder_config=lambda: config,
            create_optimization_profile=lambda: SimpleNamespace(
                set_shape=lambda name, *shapes: asked.update(shapes=(name, *shapes))
            ),
            build_serialized_network=build,
        )

    def _parser(self, network: object, logger: object) -> SimpleNamespace:
        return SimpleNamespace(
            parse=lambda content: self._parses and bool(content), num_errors=1, get_error=lambda index: "no such node"
        )

    def _runtime(self, logger: object) -> SimpleNamespace:
        inspector = SimpleNamespace(get_engine_information=lambda kind: json.dumps({"Layers": [kind]}))
        return SimpleNamespace(
            deserialize_cuda_engine=lambda plan: SimpleNamespace(create_engine_inspector=lambda: inspector)
        )


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "tensorrt", made.module())
    return made


def test_with_a_gpu_every_engine_is_built_and_described(contents: Contents, folder: Path, made: Made) -> None:
    notes = write_tensorrt(contents, folder)
    assert not any("no engine" in note for note in notes)
    kinds = (".engine", ".layers.json", ".log")
    assert {p.name for p in folder.iterdir()} == {f"{name}{kind}" for name in ENGINES for kind in kinds}
    assert (folder / "sparse.engine").read_bytes() == b"plan"
    assert "(Sparsity) Chose" in (folder / "sparse.log").read_text()
    assert json.loads((folder / "sparse.layers.json").read_text()) == {"Layers": ["json"]}
    assert [build["flags"] for build in made.builds] == [[], [], ["sparse"]] * 2
    for build in made.builds:
        assert (build["network"], build["verbosity"]) == (1 << 1, "detailed")
        assert build["shapes"] == ("input", (1, 3, 8, 8), (8, 3, 8, 8), (32, 3, 8, 8))


@pytest.mark.parametrize(("failing", "reason"), [({"parses": False}, "no such node"), ({"builds": False}, "no engine")])
def test_a_refused_file_is_an_error(
    contents: Contents, folder: Path, monkeypatch: pytest.MonkeyPatch, failing: dict[str, bool], reason: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "tensorrt", Made(**failing).module())
    with pytest.raises(ExportError, match=r"TensorRT refuses dense\.onnx") as caught:
        write_tensorrt(contents, folder)
    assert reason in str(caught.value)


def test_nvidias_own_builder_takes_these_calls(
    contents: Contents, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT-RTX has the same interface and builds without a GPU; only loading the engine needs one."""
    library = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    real = tensorrt_build._config

    def for_ampere(trt, builder, network, *, sparse):
        config = real(trt, builder, network, sparse=sparse)
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        return config

    monkeypatch.setitem(sys.modules, "tensorrt", library)
    monkeypatch.setattr(tensorrt_build, "_config", for_ampere)
    with contextlib.suppress(ExportError):
        tensorrt_build.build_engine(contents.files.fp32.sparse.path, folder / "sparse", sparse=True)
    assert "Loaded engine size" in (folder / "sparse.log").read_text()
