"""What doctor says of the build of ONNX Runtime."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from snowsdeploy.runtime.doctor import runtime_hints
from snowsdeploy.runtime.gpu_state import list_gpus
from snowsdeploy.values import Environment


def machine(name: str, *builds: str) -> Environment:
    return Environment(
        machine=f"{name}, 2 cores",
        cpu="c",
        cores=2,
        memory_bytes=1,
        gpus=(),
        os="Linux",
        versions=dict.fromkeys(builds, "1"),
    )


@pytest.mark.parametrize(
    ("name", "builds", "gpu", "part"),
    [
        ("x86_64", ("onnxruntime-gpu",), True, ""),
        ("x86_64", ("onnxruntime-gpu",), False, "pip install onnxruntime."),
        ("x86_64", ("onnxruntime",), False, ""),
        ("x86_64", ("onnxruntime", "onnxruntime-gpu"), True, "then pip install onnxruntime-gpu."),
        ("x86_64", ("onnxruntime", "onnxruntime-gpu"), False, "then pip install onnxruntime."),
        ("aarch64", ("onnxruntime",), True, "NVIDIA's onnxruntime-gpu wheel for its JetPack"),
        ("aarch64", ("onnxruntime-gpu",), True, ""),
    ],
)
def test_the_build_that_fits_is_named(name: str, builds: tuple[str, ...], gpu: bool, part: str) -> None:
    hints = runtime_hints(machine(name, *builds), gpu=gpu)
    assert len(hints) == bool(part)
    assert all(part in hint for hint in hints)


def test_gpus_are_listed_without_pytorch() -> None:
    class Missing(Exception):
        """No driver."""

    def fail() -> None:
        raise Missing

    assert list_gpus(SimpleNamespace(NVMLError=Missing, nvmlInit=fail)) == ()
    nvml = SimpleNamespace(
        NVMLError=Missing,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda index: (b"A100", "T4")[index],
        nvmlDeviceGetCudaComputeCapability=lambda index: ((8, 0), (7, 5))[index],
    )
    found = list_gpus(nvml)
    assert [(gpu.name, gpu.capability, gpu.sparse_tensor_cores) for gpu in found] == [
        ("A100", "8.0", True),
        ("T4", "7.5", False),
    ]
