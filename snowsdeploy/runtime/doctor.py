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
    if gpus and not loads["cuda"]:
        hints.append("There is a GPU but the CUDA provider does not load: check CUDA 13 and cuDNN 9.")
    return tuple(hints)
