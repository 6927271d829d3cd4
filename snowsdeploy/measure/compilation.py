"""Does NVIDIA's compiler take a file? TensorRT-RTX parses and builds ahead of time, on a machine without a GPU.

That proves that parser and builder accept every operator of the file for the compute capabilities asked for. It says
nothing of speed or of sparse kernels: those are chosen on the GPU, when the engine loads.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snowsdeploy.errors import ProviderError, first_line
from snowsdeploy.install import install_command
from snowsdeploy.layout.onnx_layout import node_layers_of
from snowsdeploy.values import Compilation

CAPABILITIES = {"7.5": "SM75", "8.0": "SM80", "8.6": "SM86", "8.9": "SM89", "12.0": "SM120"}
BATCHES = (1, 8, 32)  # smallest, most frequent and largest that the engine takes


def require_compiler(option: str = "--compile-for") -> None:
    """Raise unless TensorRT-RTX is installed.

    Raises:
        ProviderError: It is not.
    """
    try:
        _library()
    except ImportError as error:
        raise ProviderError(
            f"{option} needs TensorRT-RTX, which is not installed",
            seen=first_line(error),
            allowed="a machine with the extra compile",
            fix=install_command("compile"),
        ) from error


def check_compilation(path: Path, capabilities: Sequence[str]) -> Compilation:
    """Parse a file and build an engine with sparse weights on.

    Args:
        path: An ONNX file with a dynamic batch.
        capabilities: Keys of `CAPABILITIES`.

    Returns:
        Accepted, or refused with the compiler's messages and the layers that they speak of.

    Raises:
        ProviderError: TensorRT-RTX is not installed.
    """
    require_compiler()
    started = time.perf_counter()
    trt, log = _library(), _log()
    builder = trt.Builder(log.logger)
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(flag))
    parser = trt.OnnxParser(network, log.logger)
    size, errors = 0, list[tuple[str, str]]()
    if parser.parse(path.read_bytes()):
        for capability in capabilities:  # one at a time, so that a refusal says which
            log.messages.clear()
            engine = builder.build_serialized_network(network, _config(trt, builder, network, capability))
            size += engine.nbytes if engine is not None else 0
            if engine is None:
                reasons = log.messages or ["no engine was built, and no reason given"]
                errors += [(f"compute capability {capability}: {text}", "") for text in reasons]
    else:
        found = [parser.get_error(i) for i in range(parser.num_errors)]
        errors = [(_parser_error(e), e.node_name()) for e in found]
    layers = node_layers_of(path) if errors else {}
    return Compilation(
        compiler=f"TensorRT-RTX {trt.__version__}",
        capabilities=tuple(capabilities),
        accepted=not errors,
        messages=tuple(_named(text, node, layers) for text, node in errors),
        engine_bytes=size,
        seconds=time.perf_counter() - started,
    )


def _config(trt: Any, builder: Any, network: Any, capability: str) -> Any:  # noqa: ANN401 - no types
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, CAPABILITIES[capability]), 0)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        value = network.get_input(index)
        profile.set_shape(value.name, *((batch, *tuple(value.shape)[1:]) for batch in BATCHES))
    config.add_optimization_profile(profile)
    return config


def _parser_error(error: Any) -> str:  # noqa: ANN401 - no types
    """`Det node_det: unsupported node`; the description is often only the text of a failed check."""
    kind = error.code().name.lower().replace("_", " ")
    place = f"{error.node_operator()} {error.node_name()}".strip()
    text = "" if error.desc() in ("", "false") else f", {error.desc()}"
    return f"{place}: {kind}{text}" if place else f"{kind}{text}"


def _named(text: str, node: str, layers: Mapping[str, Sequence[str]]) -> str:
    """The message with our names of the layers whose nodes it speaks of."""
    words = {node, *re.findall(r"[\w./:]+", text)}
    known = [name for key, names in layers.items() if key in words for name in names]
    return f"{text} (layer {', '.join(dict.fromkeys(known))})" if known else text


@dataclass(frozen=True)
class _Log:
    """The compiler's logger, of which a process has one, and the errors that it was told.

    Attributes:
        logger: What the compiler calls.
        messages: Errors since the last clearing.
    """

    logger: Any
    messages: list[str]


@functools.cache
def _library() -> Any:  # noqa: ANN401 - an extension module without types
    import tensorrt_rtx  # noqa: PLC0415 - an optional extra

    return tensorrt_rtx


@functools.cache
def _log() -> _Log:
    trt, messages = _library(), []
    severe = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]  # its base is known at run time only
        def log(self, severity: object, text: str) -> None:
            if severity in severe:
                messages.append(text)

    return _Log(Logger(), messages)
