"""ONNX Runtime sessions that run where they were asked to, or not at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from snowsdeploy.artifacts import Tristate
from snowsdeploy.errors import ProviderError

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Provider:
    """An execution provider by the name of the `--provider` option.

    Attributes:
        name: What the user types.
        ep: ONNX Runtime's name.
        options: Provider options.
        uses_sparsity: Whether it can use 2:4 weights (FACTS of vendor documentation: only TensorRT does).
        hint: What to do when it does not load.
    """

    name: str
    ep: str
    options: dict[str, str]
    uses_sparsity: Tristate
    hint: str


PROVIDERS: dict[str, Provider] = {
    "cpu": Provider("cpu", "CPUExecutionProvider", {}, "no", "reinstall onnxruntime"),
    "cuda": Provider(
        "cuda",
        "CUDAExecutionProvider",
        {},
        "no",
        "install an NVIDIA driver, CUDA and cuDNN that fit onnxruntime-gpu; see `snowsdeploy doctor`",
    ),
    "tensorrt": Provider(
        "tensorrt",
        "TensorrtExecutionProvider",
        # The engine cache's key ignores weights: dense and sparse would get each other's engine.
        {"trt_sparsity_enable": "1", "trt_fp16_enable": "1", "trt_engine_cache_enable": "0"},
        "unknown",
        'pip install "tensorrt-cu13>=10.13.2,<11"; see `snowsdeploy doctor`',
    ),
}


@dataclass(frozen=True)
class OrtSession:
    """A loaded model.

    Attributes:
        session: The ONNX Runtime session, fallback disabled.
        provider: The provider asked for.
        placement: Provider -> number of nodes that it really runs.
    """

    session: ort.InferenceSession
    provider: Provider
    placement: dict[str, int]

    @classmethod
    def open(
        cls,
        model: Path | bytes,
        provider: str = "cpu",
        threads: int | None = None,
        profile: Path | None = None,
        *,
        rewrite: bool = True,
    ) -> OrtSession:
        """Load a file.

        Args:
            model: ONNX file, or its content.
            provider: Key of `PROVIDERS`.
            threads: Intra-op threads; None leaves ONNX Runtime's choice.
            profile: Prefix of a file in which ONNX Runtime records every kernel call.
            rewrite: Let ONNX Runtime fuse and replace nodes, as it does by default.

        Raises:
            ProviderError: The provider is not in this build, does not load, or ONNX Runtime refuses the file.
        """
        wanted = PROVIDERS[provider]
        if wanted.ep not in ort.get_available_providers():
            raise _not_loaded(wanted, f"this build has {', '.join(ort.get_available_providers())}")
        options = ort.SessionOptions()
        options.log_severity_level = 4  # its own account of a failed provider; ours follows
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        if not rewrite:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            providers = [(wanted.ep, wanted.options)]
            session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime raises one class a status code
            file = model.name if isinstance(model, Path) else "a model"
            raise ProviderError(
                f"ONNX Runtime cannot load {file} with --provider {provider}",
                seen=_reason(error),
                fix=wanted.hint,
            ) from error
        session.disable_fallback()
        loaded = session.get_providers()
        if loaded[0] != wanted.ep:
            raise _not_loaded(wanted, f"ONNX Runtime fell back to {', '.join(loaded)}")
        placement: Counter[str] = Counter()
        for part in session.get_provider_graph_assignment_info():  # a provider runs several parts of the graph
            placement[part.ep_name] += len(part.get_nodes())
        if not placement.get(wanted.ep):
            raise _not_loaded(wanted, f"it was given no node; {dict(placement)}")
        return cls(session, wanted, dict(placement))

    @property
    def input_name(self) -> str:
        """Name of the image input."""
        return str(self.session.get_inputs()[0].name)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(o.name for o in self.session.get_outputs())

    def run(self, images: Array) -> list[Array]:
        """Run one batch.

        Raises:
            ProviderError: ONNX Runtime fails on this input.
        """
        try:
            outputs: Sequence[Any] = self.session.run(None, {self.input_name: images})
        except Exception as error:  # as above
            raise ProviderError(
                f"ONNX Runtime failed on a batch of shape {images.shape}", seen=_reason(error)
            ) from error
        return [np.asarray(o) for o in outputs]


def _reason(error: Exception) -> str:
    """The first line of ONNX Runtime's message, without the place in its source."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"^/\S+:\d+ [^)]*\)\s*", "", text)[:300]


def _not_loaded(provider: Provider, seen: str) -> ProviderError:
    return ProviderError(
        f"--provider {provider.name} does not load on this machine",
        seen=seen,
        allowed=f"a provider that really runs the model, here at least cpu; not a silent fallback from {provider.ep}",
        fix=provider.hint,
    )
