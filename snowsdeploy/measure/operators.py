"""Where the time of a file goes: ONNX Runtime's own record of kernels, attributed to pruned layers."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import onnx

from snowsdeploy.layout.onnx_file import read_onnx_file
from snowsdeploy.layout.onnx_layout import inspect_onnx, node_layers_of
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.settings.runtime import RuntimeSettings
from snowsdeploy.values import OperatorTime, ProfiledFile

_TRACED = 20
_PRODUCTS = {"Conv", "Gemm", "MatMul", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QGemm"}
# What ONNX Runtime puts around the name of what it rewrites.
_DECORATION = re.compile(r"^InsertedPrecisionFreeCast_|(_nchwc)?(_token_\d+)?$")
_FUSED = {"Relu", "Sigmoid", "Tanh", "Clip", "LeakyRelu", "HardSigmoid", "Add", "Cast", "QuantizeLinear"}
_FUSED_DEPTH = 3
_ENGINE = re.compile("TRTKernel|TensorRT|TRT_RTX|NvTensorRTRTX", re.IGNORECASE)  # a whole part of the graph


def attribute_time(
    name: str,
    path: Path,
    runtime: RuntimeSettings,
    *,
    batch: int,
    pattern: Pattern,
    axes: Mapping[str, int] = MappingProxyType({}),
    trace: Path | None = None,
) -> ProfiledFile:
    """Time by operator; a node that runs a pruned layer's product counts as pruned.

    Args:
        name: Recorded.
        path: ONNX file.
        runtime: Where it runs.
        batch: Images a call.
        pattern: Layers that hold it count as pruned.
        axes: Sizes of the axes that vary beside the batch, by their names in the file.
        trace: ONNX Runtime's Chrome trace is copied there.

    Raises:
        ProviderError: The file does not run there.
        SourceError: It cannot be read as ONNX.
    """
    evidence = inspect_onnx(path, pattern)
    valid = {row.name for row in evidence.layers if row.layout_valid}
    pruned = _kernel_names(path, {node for node, layers in node_layers_of(path).items() if valid & set(layers)})
    times: dict[str, float] = defaultdict(float)
    shares: dict[str, float] = defaultdict(float)
    for kernel, operator, duration in _kernels(path, runtime, batch, axes, trace):
        times[operator] += duration / _TRACED
        if _DECORATION.sub("", kernel) in pruned and operator.removeprefix("Fused") in _PRODUCTS:
            shares[operator] += duration / _TRACED
    total = sum(times.values()) or 1.0
    share = None if any(_ENGINE.search(operator) for operator in times) else sum(shares.values()) / total
    rows = sorted(times, key=times.__getitem__, reverse=True)
    return ProfiledFile(
        name=name,
        file=path,
        operators=tuple(
            OperatorTime(operator=o, ms=times[o], share=times[o] / total, pruned_ms=shares[o]) for o in rows
        ),
        pruned_share=share,
        # Amdahl: sparse tensor cores at most halve the pruned products, everything else stays
        best_speedup=None if share is None else 1 / (1 - share / 2),
    )


def _kernels(
    path: Path, runtime: RuntimeSettings, batch: int, axes: Mapping[str, int], trace: Path | None
) -> Iterator[tuple[str, str, float]]:
    """Node name, operator and milliseconds of every kernel call."""
    with tempfile.TemporaryDirectory() as folder:
        session = OrtSession.open(path, runtime, profile=Path(folder) / "profile")
        images = session.random_inputs(batch, axes)
        for _ in range(_TRACED):
            session.call(images)
        text = Path(session.session.end_profiling()).read_text(encoding="utf-8")
    if trace is not None:
        trace.write_text(text, encoding="utf-8")
    for event in json.loads(text):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            yield event["name"].removesuffix("_kernel_time"), event["args"]["op_name"], event["dur"] / 1000


def _kernel_names(path: Path, nodes: set[str]) -> set[str]:
    """What ONNX Runtime may call the kernels of some products.

    It keeps a node's name, or names a kernel by its output; with what follows fused into it, by that output.
    """
    graph = read_onnx_file(path, tensors=False).graph
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    names = set(nodes)
    for node in graph.node:
        if node.name in nodes:
            frontier = [node]
            for _ in range(_FUSED_DEPTH):
                frontier = [r for n in frontier for r in readers[n.output[0]] if r.op_type in _FUSED]
                names |= {n.output[0] for n in frontier} | {n.name for n in frontier}
            names.add(node.output[0])
    return names
