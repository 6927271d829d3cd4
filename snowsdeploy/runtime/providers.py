"""The execution providers by the name of the `--provider` option, and what each needs to load."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnxruntime as ort

from snowsdeploy.errors import ProviderError, first_line
from snowsdeploy.runtime.libraries import library_in, missing_library, preload
from snowsdeploy.settings.runtime import EXECUTION_PROVIDERS
from snowsdeploy.values import Tristate


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    Attributes:
        name: What the user types.
        ep: ONNX Runtime's name.
        hint: What to do when it does not load.
        options: Provider options that hold where the user gives none.
        uses_sparsity: Whether it can use 2:4 weights; unknown where the engine decides layer by layer.
        device: Where its inputs and outputs can lie: cpu or cuda.
        sparsity_off: Options that forbid sparse kernels; empty where there is no such option.
        cuda_graph: Options that capture the whole model as one CUDA graph; empty where that is not possible.
        cache: Options that keep compiled engines, `{folder}` and `{key}` to be filled in; empty where it compiles none.
        build_log: Options with which it prints how it builds its engines; empty where it builds none, or tells nothing.
        plugin: Module of the wheel that brings it; empty where it is part of ONNX Runtime.
    """

    name: str
    ep: str
    hint: str
    options: Mapping[str, str] = field(default_factory=dict)
    uses_sparsity: Tristate = "no"
    device: str = "cuda"
    sparsity_off: Mapping[str, str] = field(default_factory=dict)
    cuda_graph: Mapping[str, str] = field(default_factory=dict)
    cache: Mapping[str, str] = field(default_factory=dict)
    build_log: Mapping[str, str] = field(default_factory=dict)
    plugin: str = ""

    def register(self) -> None:
        """Load the libraries of an NVIDIA provider, and make a plugin known to ONNX Runtime.

        Raises:
            ProviderError: The wheel is not installed, its library does not load, or it finds no GPU.
        """
        if self.device == "cuda":
            preload()
        if not self.plugin or self.ep in {device.ep_name for device in ort.get_ep_devices()}:
            return
        try:
            module = importlib.import_module(self.plugin)
            ort.register_execution_provider_library(self.ep, module.get_library_path())
        except Exception as error:  # ONNX Runtime raises one class a status code
            raise not_loaded(self, first_line(error)) from error
        if self.ep not in {device.ep_name for device in ort.get_ep_devices()}:
            raise not_loaded(self, "its library loads, but it finds no device")

    def add_to(self, options: ort.SessionOptions, values: Mapping[str, str]) -> None:
        """Put a plugin into session options, on its first device."""
        devices = [device for device in ort.get_ep_devices() if device.ep_name == self.ep]
        options.add_provider_for_devices(devices[:1], dict(values))


PROVIDERS: dict[str, Provider] = {
    "cpu": Provider("cpu", EXECUTION_PROVIDERS["cpu"], "reinstall onnxruntime", device="cpu"),
    "cuda": Provider(
        "cuda",
        EXECUTION_PROVIDERS["cuda"],
        "install an NVIDIA driver, CUDA and cuDNN that fit onnxruntime-gpu",
        cuda_graph={"enable_cuda_graph": "1"},
    ),
    "tensorrt": Provider(
        "tensorrt",
        EXECUTION_PROVIDERS["tensorrt"],
        'pip install "tensorrt-cu13>=10.13.2,<11"',
        # Its own cache key ignores weights, so dense and sparse would get each other's engine: off unless ours is used.
        options={
            "trt_sparsity_enable": "1",
            "trt_fp16_enable": "1",
            "trt_engine_cache_enable": "0",
            "trt_timing_cache_enable": "0",
        },
        uses_sparsity="unknown",
        sparsity_off={"trt_sparsity_enable": "0"},
        cuda_graph={"trt_cuda_graph_enable": "1"},
        cache={
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": "{folder}",
            "trt_engine_cache_prefix": "{key}",
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": "{folder}",
        },
        build_log={"trt_detailed_build_log": "1"},
    ),
    "tensorrt-rtx": Provider(
        "tensorrt-rtx",
        EXECUTION_PROVIDERS["tensorrt-rtx"],
        "install an NVIDIA driver, then: pip install onnxruntime-ep-nv-tensorrt-rtx",
        uses_sparsity="unknown",
        cuda_graph={"enable_cuda_graph": "1"},
        cache={"nv_runtime_cache_path": "{folder}"},
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
    ),
}


def not_loaded(provider: Provider, seen: str) -> ProviderError:
    """The error of a provider that does not run anything here, with the library that is missing where that is why."""
    missing = library_in(seen) or missing_library(provider.name)
    return ProviderError(
        f"--provider {provider.name} does not load on this machine",
        seen=f"{missing.name} is missing" if missing else seen,
        allowed=f"a provider that really runs the model, here at least cpu; not a silent fallback from {provider.ep}",
        fix=missing.fix if missing else provider.hint,
    )
