"""Latency of any ONNX files side by side.

Files take turns in random order, a block of calls each, so that the machine's state hits all of them; intervals come
from resampling whole blocks, because calls within one share that state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snowsdeploy.errors import UsageError
from snowsdeploy.layout.onnx_file import read_onnx_file
from snowsdeploy.measure.latency import RESAMPLES, UNSTABLE_COV, interval
from snowsdeploy.measure.memory import peak_memory
from snowsdeploy.measure.operators import attribute_time
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.progress import NullObserver, Observer
from snowsdeploy.runtime.environment import describe_environment
from snowsdeploy.runtime.gpu_state import read_gpu
from snowsdeploy.runtime.probe import require_provider
from snowsdeploy.runtime.providers import PROVIDERS
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.settings.profile import ProfileSettings
from snowsdeploy.settings.runtime import RuntimeSettings
from snowsdeploy.values import Copies, FileRatio, GpuReading, Profile, TimedFile

BLOCK = 5  # calls of one file in a row
_LEAST_WARMUP, _MOST_WARMUP, _STEADY = 10, 60, 0.02

Times = NDArray[np.float64]  # [blocks, calls], milliseconds


@dataclass(frozen=True, eq=False)  # each is a key, whatever its values
class Contestant:
    """One file and how it is run.

    Attributes:
        name: Tells it from the others.
        path: ONNX file.
        runtime: Where and how it runs.
        copies: Whether a call copies images to the device and outputs back.
        axes: Sizes of the axes that vary beside the batch, by their names in the file.
    """

    name: str
    path: Path
    runtime: RuntimeSettings
    copies: Copies = "included"
    axes: Mapping[str, int] = field(default_factory=dict)


def profile(
    paths: Sequence[Path], settings: ProfileSettings | None = None, *, observer: Observer | None = None
) -> Profile:
    """Time files side by side, and attribute the time of each to its operators.

    Args:
        paths: ONNX files; ratios are against the first.
        settings: What is timed, and where.
        observer: Told about progress.

    Raises:
        UsageError: The provider has no such option, two files have one name, or a file needs a size that is not given.
        ProviderError: The provider does not load, or a file does not run there.
        SourceError: A file cannot be read as ONNX.
    """
    settings, observer = settings or ProfileSettings(), observer or NullObserver()
    timed = contestants(paths, settings, sparsity_off=settings.sparsity_off, cuda_graph=settings.cuda_graph)
    timed = tuple(replace(contestant, axes=settings.axes) for contestant in timed)
    for path in paths:
        read_onnx_file(path)  # says what is wrong with it better than ONNX Runtime, and always comes to an end
    require_provider(settings)
    observer.stage(
        "profile",
        f"{len(paths)} {'file' if len(paths) == 1 else 'files'} on {settings.provider}, {settings.runs} calls each",
    )
    return profile_files(
        timed,
        settings.batch,
        runs=settings.runs,
        pattern=Pattern.parse(settings.pattern),
        seed=settings.seed,
        memory=settings.memory,
        trace=settings.trace,
        progress=observer.advance,
    )


def contestants(
    paths: Sequence[Path], runtime: RuntimeSettings, *, sparsity_off: bool = False, cuda_graph: bool = False
) -> tuple[Contestant, ...]:
    """What is timed: each file; with sparse kernels forbidden too; and on a GPU with and without copies.

    Args:
        paths: ONNX files.
        runtime: Where they run.
        sparsity_off: Time each file once more without sparse kernels: that tells their gain from that of zeros.
        cuda_graph: Capture each file as one CUDA graph, which excludes copies.

    Raises:
        UsageError: The provider has no such option, or two files have one name.
    """
    provider = PROVIDERS[runtime.provider]
    for wanted, options, flag in (
        (sparsity_off, provider.sparsity_off, "--sparsity-off"),
        (cuda_graph, provider.cuda_graph, "--cuda-graph"),
    ):
        if wanted and not options:
            able = [p.name for p in PROVIDERS.values() if (p.cuda_graph if flag == "--cuda-graph" else p.sparsity_off)]
            raise UsageError(
                f"{flag} has no meaning here",
                seen=f"--provider {provider.name}",
                allowed=" or ".join(f"--provider {name}" for name in able),
                fix=f"leave {flag} out, or change --provider",
            )
    names = _names(paths)
    graph = dict(provider.cuda_graph) if cuda_graph else {}
    kinds: list[tuple[str, dict[str, str]]] = [("", graph)]
    if sparsity_off:
        kinds.append((", sparsity off", graph | dict(provider.sparsity_off)))
    copies: tuple[Copies, ...] = ("included",)
    if provider.device == "cuda":
        copies = ("excluded",) if cuda_graph else ("included", "excluded")
    return tuple(
        Contestant(f"{names[path]}{suffix}", path, _with(runtime, options), copy)
        for copy in copies
        for path in paths
        for suffix, options in kinds
    )


def profile_files(
    files: Sequence[Contestant],
    batch_sizes: Sequence[int],
    *,
    runs: int,
    pattern: Pattern,
    seed: int = 0,
    memory: bool = False,
    trace: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Profile:
    """Time files against the first one, and attribute the time of each to its operators.

    Args:
        files: What is timed; the first with the same copies is the baseline of a ratio.
        batch_sizes: Each is timed.
        runs: Timed calls of each file at each batch size, in blocks.
        pattern: Layers that hold it count as pruned.
        seed: Of the order, the inputs and the bootstrap.
        memory: Measure peak memory too, in a process for each file and batch size.
        trace: Chrome trace of the last file at the first batch size.
        progress: Told `(done, total)` batch sizes.

    Raises:
        ProviderError: A file does not run there.
        SourceError: A file cannot be read as ONNX.
    """
    rng = np.random.default_rng(seed)
    sessions = {file: OrtSession.open(file.path, file.runtime) for file in files}
    series: list[TimedFile] = []
    ratios: list[FileRatio] = []
    readings: list[GpuReading] = []
    for index, batch in enumerate(batch_sizes):
        samples = _timed(sessions, batch, runs, rng)
        readings += read_gpu(f"after batch {batch}") if PROVIDERS[files[0].runtime.provider].device == "cuda" else ()
        series += [_series(file, batch, values, rng, memory=memory) for file, values in samples.items()]
        ratios += _ratios(samples, batch, rng)
        progress(index + 1, len(batch_sizes))
    once = {file.name: file for file in reversed(files)}
    chosen = [once[name] for name in dict.fromkeys(file.name for file in files)]
    return Profile(
        provider=files[0].runtime.provider,
        environment=describe_environment(),
        series=tuple(series),
        ratios=tuple(ratios),
        files=tuple(
            attribute_time(f.name, f.path, f.runtime, batch=batch_sizes[0], axes=f.axes, pattern=pattern, trace=trace)
            for f in chosen
        ),
        gpu=tuple(readings),
        note=_note(series, readings),
    )


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


def ratio(baseline: tuple[str, Times], other: tuple[str, Times], batch: int, rng: np.random.Generator) -> FileRatio:
    """Ratio of medians with the interval of a bootstrap over rounds.

    Args:
        baseline: Name and latencies `[rounds, calls]`, milliseconds.
        other: The same of the file compared; round i of both ran next to each other.
        batch: Recorded.
        rng: Source of the resamples.
    """
    first, second = baseline[1], other[1]
    draws = _draws(first, rng)
    speedup = float(np.median(first) / np.median(second))
    low, high = interval(_medians(first, draws) / _medians(second, draws), around=speedup)
    return FileRatio(name=other[0], baseline=baseline[0], batch=batch, speedup=speedup, low=low, high=high)


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """File names, with the folder where two are alike."""
    names = {path: path.name for path in paths}
    alike = {name for name in names.values() if list(names.values()).count(name) > 1}
    names = {path: f"{path.parent.name}/{name}" if name in alike else name for path, name in names.items()}
    if len(set(names.values())) < len(paths):
        raise UsageError(
            "two files cannot be told apart",
            seen=", ".join(map(str, paths)),
            allowed="files that differ in their own name or in their folder's",
            fix="name each file once, or copy one under another name",
        )
    return names


def _with(runtime: RuntimeSettings, options: Mapping[str, str]) -> RuntimeSettings:
    return runtime.model_copy(update={"provider_option": {**runtime.provider_option, **options}})


def _timed(
    sessions: Mapping[Contestant, OrtSession], batch: int, runs: int, rng: np.random.Generator
) -> dict[Contestant, Times]:
    calls = {file: _caller(file, session, batch) for file, session in sessions.items()}
    for call in calls.values():
        warm_up(call)
    blocks: dict[Contestant, list[list[float]]] = {file: [] for file in sessions}
    order = list(sessions)
    for _ in range(max(2, -(-runs // BLOCK))):
        for index in rng.permutation(len(order)):
            call = calls[order[index]]
            blocks[order[index]].append([_milliseconds(call) for _ in range(BLOCK)])
    return {file: np.array(values) for file, values in blocks.items()}


def _caller(file: Contestant, session: OrtSession, batch: int) -> Callable[[], object]:
    images = session.random_inputs(batch, file.axes)
    return session.bind(images) if file.copies == "excluded" else lambda: session.call(images)


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def _medians(samples: Times, draws: NDArray[np.intp]) -> NDArray[np.float64]:
    medians: NDArray[np.float64] = np.median(samples[draws].reshape(len(draws), -1), axis=1)
    return medians


def _draws(samples: Times, rng: np.random.Generator) -> NDArray[np.intp]:
    return rng.integers(0, len(samples), (RESAMPLES, len(samples)))


def _series(file: Contestant, batch: int, samples: Times, rng: np.random.Generator, *, memory: bool) -> TimedFile:
    p50, p90, p95, p99 = np.percentile(samples, [50, 90, 95, 99])
    low, high = interval(_medians(samples, _draws(samples, rng)), around=float(p50))
    host, device = peak_memory(file.path, file.runtime, batch, file.axes) if memory else (None, None)
    return TimedFile(
        name=file.name,
        file=file.path,
        batch=batch,
        copies=file.copies,
        runs=samples.size,
        p50_ms=float(p50),
        p50_low_ms=low,
        p50_high_ms=high,
        p90_ms=float(p90),
        p95_ms=float(p95),
        p99_ms=float(p99),
        cov=float(samples.std(ddof=1) / samples.mean()),
        images_per_second=float(1000 * batch / p50),
        host_bytes=host,
        device_bytes=device,
    )


def _ratios(samples: Mapping[Contestant, Times], batch: int, rng: np.random.Generator) -> Iterator[FileRatio]:
    for copies in dict.fromkeys(file.copies for file in samples):
        first, *others = [file for file in samples if file.copies == copies]
        for other in others:
            found = ratio((first.name, samples[first]), (other.name, samples[other]), batch, rng)
            yield found.model_copy(update={"copies": copies})


def _note(series: Sequence[TimedFile], readings: Sequence[GpuReading]) -> str:
    parts = []
    noisy = max(row.cov for row in series)
    if noisy > UNSTABLE_COV:
        parts.append(f"Timings are unstable: coefficient of variation up to {100 * noisy:.0f} % (above 2.5 %).")
    if reasons := dict.fromkeys(reason for reading in readings for reason in reading.throttled):
        parts.append(f"The GPU held its clocks down: {', '.join(reasons)}.")
    return " ".join(parts)
