"""The model repository, read with Triton's own message types, and its models run in ONNX Runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
import torch
from google.protobuf import text_format
from torch import Tensor, nn

from snowsdeploy.errors import ExportError
from snowsdeploy.settings.export import ExportSettings
from snowsdeploy.stages.packages import Contents
from snowsdeploy.values import SourceInfo
from snowsdeploy_exporters.formats import triton
from snowsdeploy_exporters.formats.triton import base_name, write_triton
from tests.exporters.contents import make_contents
from tests.nets import TinyCNN, make_program

NUMPY = {"TYPE_FP32": np.float32, "TYPE_UINT8": np.uint8, "TYPE_INT64": np.int64}
SERVING = ExportSettings(uint8_input=True, softmax=True, top_k=2)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    return make_contents(make_program(TinyCNN()), folder, ("fp32", "fp16"), SERVING)


@pytest.fixture(scope="module")
def repository(contents: Contents) -> Path:
    folder = contents.files.fp32.sparse.path.parent / "triton"
    folder.mkdir()
    write_triton(contents, folder)
    return folder


@pytest.fixture(scope="module")
def messages() -> ModuleType:
    """Triton's message types without its client, which needs gRPC."""
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        pytest.skip("tritonclient is not installed")
    path = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODELS = tuple(f"test_{kind}{suffix}" for suffix in ("", "_fp16") for kind in ("dense", "sparse", "serving"))


def read_config(repository: Path, name: str, messages: ModuleType):
    return text_format.Parse((repository / name / "config.pbtxt").read_text(), messages.ModelConfig())


def test_a_model_for_each_file_and_nothing_else(repository: Path) -> None:
    assert {p.name for p in repository.iterdir()} == {*MODELS, "README.md"}
    for name in MODELS:
        files = {p.relative_to(repository / name).as_posix() for p in (repository / name).rglob("*") if p.is_file()}
        assert files == {"config.pbtxt", "1/model.onnx"}


@pytest.mark.parametrize("name", MODELS)
def test_a_config_says_what_its_file_takes_and_gives(repository: Path, name: str, messages: ModuleType) -> None:
    config = read_config(repository, name, messages)
    assert (config.name, config.platform, config.backend) == (name, "onnxruntime_onnx", "onnxruntime")
    session = onnxruntime.InferenceSession(repository / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    kinds = messages.DataType
    (image,) = config.input
    feed = np.zeros((config.max_batch_size, *image.dims), NUMPY[kinds.Name(image.data_type)])
    outputs = session.run([o.name for o in config.output], {image.name: feed})
    assert len(outputs) == len(session.get_outputs())
    for described, value in zip(config.output, outputs, strict=True):
        assert value.shape == (config.max_batch_size, *described.dims)
        assert value.dtype == NUMPY[kinds.Name(described.data_type)]


@pytest.mark.parametrize("name", MODELS)
def test_sparse_kernels_for_sparse_models_and_no_engine_cache(
    repository: Path, name: str, messages: ModuleType
) -> None:
    config = read_config(repository, name, messages)
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    options = dict(accelerator.parameters)
    assert accelerator.name == "tensorrt"
    assert options["trt_sparsity_enable"] == ("0" if "dense" in name else "1")
    assert options["trt_engine_cache_enable"] == "0"
    assert options["precision_mode"] == ("FP16" if name.endswith("fp16") else "FP32")
    assert options["trt_profile_max_shapes"] == ("input:32x8x8x3" if "serving" in name else "input:32x3x8x8")
    assert list(config.dynamic_batching.preferred_batch_size) == [8, config.max_batch_size]
    assert [group.count for group in config.instance_group] == [1]


def test_models_are_the_files_of_the_run_and_take_no_space(contents: Contents, repository: Path) -> None:
    assert (repository / "test_sparse" / "1" / "model.onnx").samefile(contents.files.fp32.sparse.path)
    assert (repository / "test_serving" / "1" / "model.onnx").samefile(contents.files.serving[0].path)


def test_files_are_copied_where_they_cannot_be_shared(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(triton.os, "link", refuse)
    write_triton(contents, tmp_path)
    copy = tmp_path / "test_sparse" / "1" / "model.onnx"
    assert not copy.samefile(contents.files.fp32.sparse.path)
    assert copy.read_bytes() == contents.files.fp32.sparse.path.read_bytes()


def test_the_readme_starts_the_server_and_measures_every_model(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    assert "tritonserver --model-repository=/models" in text
    for name in MODELS:
        assert f"perf_analyzer -m {name} " in text


@pytest.mark.parametrize(
    ("source", "arch", "name"),
    [
        ("model.pth", "resnet20", "resnet20"),
        ("model.pth", "vit_tiny.augreg", "vit_tiny_augreg"),
        ("some/my net.pt2", None, "my_net"),
        ("package.nets:make", None, "make"),
        ("über.pt", None, "ber"),
        ("....pt", None, "model"),
    ],
)
def test_names_are_fit_for_paths(source: str, arch: str | None, name: str) -> None:
    assert base_name(SourceInfo(source=source, format="checkpoint", arch=arch)) == name


class Summed(nn.Module):
    """Its second output is one number for the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(x)
        return x.mean((2, 3)), x.sum()


def test_an_output_without_a_batch_axis_is_an_error(tmp_path: Path) -> None:
    contents = make_contents(make_program(Summed()), tmp_path)
    (tmp_path / "triton").mkdir()
    with pytest.raises(ExportError, match="no batch axis") as caught:
        write_triton(contents, tmp_path / "triton")
    assert "output_1" in str(caught.value)
