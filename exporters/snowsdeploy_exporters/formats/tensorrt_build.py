"""One ONNX file -> one TensorRT engine, with the builder's account of it. Needs a GPU and the `tensorrt` package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from snowsdeploy.errors import ExportError
from snowsdeploy_exporters.formats.graph_io import BATCHES


def reason_not_to_build() -> str | None:
    """Why no engine can be built on this machine; None when one can."""
    if not torch.cuda.is_available():
        return "this machine has no NVIDIA GPU that PyTorch can use"
    try:
        import tensorrt  # noqa: F401, PLC0415 - not a dependency: it is large and fits one GPU driver
    except ImportError as error:
        return f"the package tensorrt does not import ({error})"
    return None


def build_engine(source: Path, target: Path, *, sparse: bool) -> None:
    """Build, and save beside the engine what the inspector says of its layers and the builder's log.

    Args:
        source: The ONNX file.
        target: Path without a suffix; `.engine`, `.layers.json` and `.log` are added.
        sparse: Allow sparse kernels where the weights hold the pattern.

    Raises:
        ExportError: TensorRT refuses the file.
    """
    import tensorrt as trt  # noqa: PLC0415 - as above

    with _beside(target, ".log").open("w", encoding="utf-8") as log:
        logger = _logger(trt, log)
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(source.read_bytes()):
            reasons = [str(parser.get_error(index)) for index in range(parser.num_errors)]
            raise _refused(source, "; ".join(reasons))
        plan = builder.build_serialized_network(network, _config(trt, builder, network, sparse=sparse))
        engine = None if plan is None else trt.Runtime(logger).deserialize_cuda_engine(plan)
        if engine is None:
            raise _refused(source, "no engine was built, or it does not load")
        layers = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    _beside(target, ".engine").write_bytes(plan)
    _beside(target, ".layers.json").write_text(layers, encoding="utf-8")


def _config(trt: Any, builder: Any, network: Any, *, sparse: bool) -> Any:  # noqa: ANN401 - no types
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    profile = builder.create_optimization_profile()
    for value in (network.get_input(index) for index in range(network.num_inputs)):
        profile.set_shape(value.name, *((batch, *tuple(value.shape)[1:]) for batch in BATCHES))
    config.add_optimization_profile(profile)
    return config


def _logger(trt: Any, stream: Any) -> Any:  # noqa: ANN401 - no types
    """A logger that keeps everything: the lines on sparse kernels are verbose ones."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # its base is known at run time only
        def log(self, severity: Any, text: str) -> None:  # noqa: ANN401 - no types
            stream.write(f"[{severity.name}] {text}\n")

    return Logger()


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


def _refused(source: Path, reason: str) -> ExportError:
    return ExportError(
        f"TensorRT refuses {source.name}",
        seen=reason[:400],
        allowed="an ONNX file that TensorRT can build",
        fix="leave tensorrt out of --format, or that precision out of --precision",
    )
