"""Latency of any ONNX files side by side, and where the time goes inside each.

Files take turns in random order, a block of calls each, so that the machine's state hits all of them; intervals come
from resampling whole blocks, because calls within one share that state.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from snowsdeploy.artifacts import FileRatio, OperatorTime, Profile, ProfiledFile, TimedFile
from snowsdeploy.sparsity.onnx_layout import inspect_onnx, node_layers_of
from snowsdeploy.sparsity.pattern import Pattern
from snowsdeploy.validation.environment import describe_environment
from snowsdeploy.validation.latency import RESAMPLES, UNSTABLE_COV, interval
from snowsdeploy.validation.ort import OrtSession

BLOCK = 5  # calls of one file in a row
_LEAST_WARMUP, _MOST_WARMUP, _STEADY = 10, 60, 0.02
_TRACED = 20
_PRODUCTS = {"Conv", "Gemm", "MatMul", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QGemm"}
# What ONNX Runtime puts around the name of what it rewrites.
_DECORATION = re.compile(r"^InsertedPrecisionFreeCast_|(_nchwc)?(_token_\d+)?$")
_FUSED, _FUSED_DEPTH = (
    {"Relu", "Sigmoid", "Tanh", "Clip", "LeakyRelu", "HardSigmoid", "Add", "Cast", "QuantizeLinear"},
    3,
)

Samples = NDArray[np.float64]  # [blocks, calls], milliseconds


def profile_files(
    paths: Sequence[Path],
    provider: str,
    batch_sizes: Sequence[int],
    *,
    runs: int,
    pattern: Pattern,
    seed: int = 0,
    trace: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Profile:
    """Time files against the first one, and attribute the time of each to its operators.

    Args:
        paths: ONNX files; the first is the baseline of all ratios.
        provider: Where they run.
        batch_sizes: Each is timed.
        runs: Timed calls of each file at each batch size, in blocks.
        pattern: Layers that hold it count as pruned.
        seed: Of the order, the inputs and the bootstrap.
        trace: Chrome trace of the last file at the first batch size.
        progress: Told `(done, total)` batch sizes.

    Raises:
        ProviderError: A file does not run there.
        SourceError: A file cannot be read as ONNX.
    """
    rng = np.random.default_rng(seed)
    sessions = {path: OrtSession.open(path, provider) for path in paths}
    series, ratios = [], []
    for index, batch in enumerate(batch_sizes):
        samples = _timed(sessions, batch, runs, rng)
        series += [_series(path, batch, values, rng) for path, values in samples.items()]
        first = samples[paths[0]]
        ratios += [ratio((paths[0], first), (path, samples[path]), batch, rng) for path in paths[1:]]
        progress(index + 1, len(batch_sizes))
    noisy = max(s.cov for s in series)
    text = f"Timings are unstable: coefficient of variation up to {100 * noisy:.0f} % (above 2.5 %)."
    return Profile(
        provider=provider,
        environment=describe_environment(),
        series=tuple(series),
        ratios=tuple(ratios),
        files=tuple(_operators(path, provider, batch_sizes[0], pattern, trace) for path in paths),
        note=text if noisy > UNSTABLE_COV else "",
    )


def make_input(session: OrtSession, batch: int, seed: int = 0) -> NDArray[Any]:
    """Random images of the file's own input shape and type, its dynamic dimensions set to `batch`."""
    value = session.session.get_inputs()[0]
    shape = [size if isinstance(size, int) else batch for size in value.shape]
    rng = np.random.default_rng(seed)
    if value.type == "tensor(uint8)":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.standard_normal(shape).astype(np.float16 if value.type == "tensor(float16)" else np.float32)


def warm_up(call: Callable[[], object]) -> int:
    """Call until two halves of the last calls agree, or often enough; how often."""
    times: list[float] = []
    while len(times) < _MOST_WARMUP:
        times.append(_milliseconds(call))
        if len(times) >= _LEAST_WARMUP:
            before, after = np.median(times[-10:-5]), np.median(times[-5:])
            if abs(after - before) <= _STEADY * before:
                break
    return len(times)


def _timed(sessions: Mapping[Path, OrtSession], batch: int, runs: int, rng: np.random.Generator) -> dict[Path, Samples]:
    inputs = {path: make_input(session, batch) for path, session in sessions.items()}
    calls = {path: _caller(session, inputs[path]) for path, session in sessions.items()}
    for call in calls.values():
        warm_up(call)
    blocks: dict[Path, list[list[float]]] = {path: [] for path in sessions}
    order = list(sessions)
    for _ in range(max(2, -(-runs // BLOCK))):
        for index in rng.permutation(len(order)):
            call = calls[order[index]]
            blocks[order[index]].append([_milliseconds(call) for _ in range(BLOCK)])
    return {path: np.array(values) for path, values in blocks.items()}


def _caller(session: OrtSession, images: NDArray[Any]) -> Callable[[], object]:
    return lambda: session.run(images)


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def _medians(samples: Samples, draws: NDArray[np.intp]) -> NDArray[np.float64]:
    medians: NDArray[np.float64] = np.median(samples[draws].reshape(len(draws), -1), axis=1)
    return medians


def _draws(samples: Samples, rng: np.random.Generator) -> NDArray[np.intp]:
    return rng.integers(0, len(samples), (RESAMPLES, len(samples)))


def _series(path: Path, batch: int, samples: Samples, rng: np.random.Generator) -> TimedFile:
    low, high = interval(_medians(samples, _draws(samples, rng)))
    p50, p90, p95, p99 = np.percentile(samples, [50, 90, 95, 99])
    return TimedFile(
        file=path,
        batch=batch,
        runs=samples.size,
        p50_ms=float(p50),
        p50_low_ms=low,
        p50_high_ms=high,
        p90_ms=float(p90),
        p95_ms=float(p95),
        p99_ms=float(p99),
        cov=float(samples.std(ddof=1) / samples.mean()),
        images_per_second=float(1000 * batch / p50),
    )


def ratio(
    baseline: tuple[Path, Samples], other: tuple[Path, Samples], batch: int, rng: np.random.Generator
) -> FileRatio:
    """Ratio of medians with the interval of a bootstrap over rounds.

    Args:
        baseline: File and its latencies `[rounds, calls]`, milliseconds.
        other: The same of the file compared; round i of both ran next to each other.
        batch: Recorded.
        rng: Source of the resamples.
    """
    first, second = baseline[1], other[1]
    draws = _draws(first, rng)
    low, high = interval(_medians(first, draws) / _medians(second, draws))
    speedup = float(np.median(first) / np.median(second))
    return FileRatio(file=other[0], baseline=baseline[0], batch=batch, speedup=speedup, low=low, high=high)


def _operators(path: Path, provider: str, batch: int, pattern: Pattern, trace: Path | None) -> ProfiledFile:
    """Time by operator from ONNX Runtime's own profile; a node that runs a pruned layer's product counts as pruned."""
    evidence = inspect_onnx(path, pattern)
    valid = {row.name for row in evidence.layers if row.layout_valid}
    pruned = _kernel_names(path, {node for node, layers in node_layers_of(path).items() if valid & set(layers)})
    times: dict[str, float] = defaultdict(float)
    shares: dict[str, float] = defaultdict(float)
    for name, operator, duration in _kernels(path, provider, batch, trace):
        times[operator] += duration / _TRACED
        if _DECORATION.sub("", name) in pruned and operator.removeprefix("Fused") in _PRODUCTS:
            shares[operator] += duration / _TRACED
    total = sum(times.values()) or 1.0
    share = sum(shares.values()) / total
    rows = sorted(times, key=times.__getitem__, reverse=True)
    return ProfiledFile(
        file=path,
        operators=tuple(
            OperatorTime(operator=o, ms=times[o], share=times[o] / total, pruned_ms=shares[o]) for o in rows
        ),
        pruned_share=share,
        # Amdahl: sparse tensor cores at most halve the pruned products, everything else stays
        best_speedup=1 / (1 - share / 2),
    )


def _kernels(path: Path, provider: str, batch: int, trace: Path | None) -> Iterator[tuple[str, str, float]]:
    """Node name, operator and milliseconds of every kernel call."""
    with tempfile.TemporaryDirectory() as folder:
        session = OrtSession.open(path, provider, profile=Path(folder) / "profile")
        images = make_input(session, batch)
        for _ in range(_TRACED):
            session.run(images)
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
    graph = onnx.load(path, load_external_data=False).graph
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
