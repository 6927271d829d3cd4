"""The accounts of a TensorRT engine: its build log and its inspector's JSON, from files or from captured text."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from snowsdeploy.engines.tensorrt_layers import EngineLayers, parse_layers
from snowsdeploy.engines.tensorrt_log import BuildLog, parse_log
from snowsdeploy.errors import SourceError
from snowsdeploy.files import require_regular
from snowsdeploy.values import EngineSource


@dataclass(frozen=True)
class EngineAccount:
    """What is known of one engine.

    Attributes:
        sources: Where it comes from.
        log: Its build log.
        layers: Its inspector's layers.
    """

    sources: tuple[EngineSource, ...]
    log: BuildLog | None = None
    layers: EngineLayers | None = None


def captured_account(log: str) -> EngineAccount:
    """Of text that was captured while an engine was built, such as what ONNX Runtime's TensorRT provider printed."""
    digest = sha256(log.encode("utf-8", "surrogatepass")).hexdigest()
    return EngineAccount((EngineSource(kind="log", sha256=digest),), parse_log(log))


def read_account(log: Path | None, layers: Path | None) -> EngineAccount:
    """Of a build log, the inspector's JSON, or both of the same engine.

    Raises:
        SourceError: A file cannot be read, or is not what its option asks for.
    """
    sources, build_log, engine_layers = [], None, None
    if log is not None:
        text, digest = _read(log, "--engine-log")
        build_log = _parse_log(text, log)
        sources.append(EngineSource(kind="log", path=log, sha256=digest))
    if layers is not None:
        text, digest = _read(layers, "--engine-layers")
        engine_layers = parse_layers(text)
        sources.append(EngineSource(kind="layers", path=layers, sha256=digest))
    return EngineAccount(tuple(sources), build_log, engine_layers)


def _parse_log(text: str, path: Path) -> BuildLog:
    found = parse_log(text)
    if not found.passes and text.lstrip()[:1] == "{" and '"Layers"' in text:
        raise SourceError(
            "--engine-log is the engine inspector's JSON",
            seen=path,
            allowed="what TensorRT printed while it built the engine",
            fix="pass it as --engine-layers",
        )
    return found


def _read(path: Path, option: str) -> tuple[str, str]:
    """Text and digest of a file."""
    require_regular(path, f"{option} cannot be read", SourceError)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"{option} cannot be read",
            seen=f"{path}: {error.strerror}",
            allowed="FILE, or PRECISION=FILE such as fp16=FILE",
            fix="check the path",
        ) from error
    utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")  # what PowerShell writes when output is redirected
    if b"\0" in content and not utf16:
        raise SourceError(
            f"{option} is not a text file",
            seen=path,
            allowed="text that TensorRT wrote of the engine, not the engine itself",
            fix="trtexec --onnx=model.onnx --sparsity=enable --verbose --profilingVerbosity=detailed "
            "--exportLayerInfo=layers.json > build.log",
        )
    return content.decode("utf-16" if utf16 else "utf-8-sig", errors="replace"), sha256(content).hexdigest()
