"""What this machine can run, tried rather than read off a build's list."""

from __future__ import annotations

from typing import Literal, get_args

from snowsdeploy.runtime.environment import describe_environment
from snowsdeploy.runtime.gpu_state import list_gpus
from snowsdeploy.runtime.probe import provider_problem
from snowsdeploy.runtime.providers import PROVIDERS
from snowsdeploy.settings.runtime import ProviderName
from snowsdeploy.values import Artifact, Environment

TENSORRT_MAJOR = 10  # what onnxruntime-gpu's provider links


class ProviderStatus(Artifact):
    """Whether an execution provider ran a model of one node."""

    name: str
    loads: bool
    uses_sparsity: str
    problem: str = ""
    fix: str = ""


class GpuStatus(Artifact):
    """One GPU. `sparse_tensor_cores` holds from compute capability 8.0 on."""

    name: str
    capability: str
    sparse_tensor_cores: bool


class Diagnosis(Artifact):
    """Everything `doctor` found; `hints` say what to change."""

    environment: Environment
    gpus: tuple[GpuStatus, ...]
    providers: tuple[ProviderStatus, ...]
    hints: tuple[str, ...]
    verdict: Literal["2:4 can run fast here", "2:4 brings no speed on this machine"]


def diagnose() -> Diagnosis:
    """Try every provider on a tiny model and look at the GPUs."""
    environment = describe_environment()
    gpus = tuple(
        GpuStatus(name=gpu.name, capability=gpu.capability, sparse_tensor_cores=gpu.sparse_tensor_cores)
        for gpu in list_gpus()
    )
    providers = tuple(_status(name) for name in get_args(ProviderName))
    loads = {p.name: p.loads for p in providers}
    fast = (loads["tensorrt"] or loads["tensorrt-rtx"]) and any(g.sparse_tensor_cores for g in gpus)
    return Diagnosis(
        environment=environment,
        gpus=gpus,
        providers=providers,
        hints=_hints(environment, gpus, loads),
        verdict="2:4 can run fast here" if fast else "2:4 brings no speed on this machine",
    )


def _status(name: ProviderName) -> ProviderStatus:
    problem = provider_problem(name)
    return ProviderStatus(
        name=name,
        loads=problem is None,
        uses_sparsity={"no": "no", "yes": "yes", "unknown": "with the right layers"}[PROVIDERS[name].uses_sparsity],
        problem=(problem.seen or problem.what) if problem else "",
        fix=(problem.fix or "") if problem else "",
    )


def runtime_hints(environment: Environment, *, gpu: bool) -> tuple[str, ...]:
    """Which build of ONNX Runtime fits this machine, where another is installed.

    Args:
        environment: Machine and versions.
        gpu: Whether there is an NVIDIA GPU.
    """
    gpu_build, cpu_build = ("onnxruntime-gpu" in environment.versions, "onnxruntime" in environment.versions)
    if gpu_build and cpu_build:
        fitting = "onnxruntime-gpu" if gpu else "onnxruntime"
        both = "onnxruntime and onnxruntime-gpu are both installed and overwrite each other"
        return (f"{both}: pip uninstall onnxruntime onnxruntime-gpu, then pip install {fitting}.",)
    if environment.machine.startswith("aarch64") and cpu_build:
        wheel = "NVIDIA's onnxruntime-gpu wheel for its JetPack"
        return (f"The package index has only ONNX Runtime's CPU build for aarch64: on a Jetson install {wheel}.",)
    if gpu_build and not gpu:
        swap = "pip uninstall onnxruntime-gpu, then pip install onnxruntime"
        return (f"Without an NVIDIA GPU the smaller CPU build of ONNX Runtime serves as well: {swap}.",)
    return ()


def _hints(environment: Environment, gpus: tuple[GpuStatus, ...], loads: dict[str, bool]) -> tuple[str, ...]:
    hints = []
    if not gpus:
        hints.append("No NVIDIA GPU: models are pruned, exported and proven here; measure their speed on the target.")
    tensorrt = environment.versions.get("tensorrt")
    if tensorrt and int(tensorrt.partition(".")[0]) != TENSORRT_MAJOR:
        hints.append(
            f"tensorrt {tensorrt} cannot be loaded by onnxruntime-gpu, which links version {TENSORRT_MAJOR}: "
            'pip install "tensorrt-cu13>=10.13.2,<11".'
        )
    hints += runtime_hints(environment, gpu=bool(gpus))
    if gpus and not loads["cuda"]:
        hints.append("There is a GPU but the CUDA provider does not load: check CUDA 13 and cuDNN 9.")
    return tuple(hints)
