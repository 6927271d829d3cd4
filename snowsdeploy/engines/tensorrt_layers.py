"""The TensorRT engine inspector's JSON -> layers, their kernels and the ONNX nodes that they were made from.

`trtexec --exportLayerInfo` and `IEngineInspector.get_engine_information` write it; kernels are in it when the engine
was built with detailed profiling verbosity. `HasSparseWeights` says that a layer is eligible; that a sparse kernel was
chosen shows in the name of the kernel alone.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from snowsdeploy.errors import SourceError

_SPARSE_KERNEL = re.compile("sparse|sptensor|spmma", re.IGNORECASE)
_NODE = re.compile(r"\[ONNX Layer: ([^\x1e\x1f]*?)\](?=\s*(?:[\x1e\x1f\[]|$))")
_ALLOWED = 'the engine inspector\'s JSON: {"Layers": [{"Name": ..., "TacticName": ...}, ...]}'
_FIX = "write it with trtexec --exportLayerInfo=FILE --profilingVerbosity=detailed"


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine.

    Attributes:
        name: The engine's name.
        kind: Its type; empty when only the name is known.
        kernel: Name of its kernel; empty when unknown.
        sparse_weights: Whether its weights are eligible; None where the inspector does not say.
        nodes: ONNX nodes that it was made from; empty when the inspector does not list them.
    """

    name: str
    kind: str = ""
    kernel: str = ""
    sparse_weights: bool | None = None
    nodes: tuple[str, ...] = ()

    @property
    def sparse_kernel(self) -> bool | None:
        """Whether it runs a sparse kernel; None when the kernel is unknown."""
        return bool(_SPARSE_KERNEL.search(self.kernel)) if self.kernel else None

    @property
    def copies(self) -> bool:
        """Whether it only moves data for the layer that its name speaks of."""
        return self.kind.lower() == "reformat" or self.name.startswith("Reformatting CopyNode")


@dataclass(frozen=True)
class EngineLayers:
    """An engine.

    Attributes:
        layers: In order of execution.
        detailed: Whether it was built with detailed verbosity; else there are names only.
    """

    layers: tuple[EngineLayer, ...]
    detailed: bool


def parse_layers(text: str) -> EngineLayers:
    """Read the inspector's JSON.

    Raises:
        SourceError: It is not JSON, or JSON of another shape.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong("is not JSON", f"{text.strip()[:60]!r}: {error}") from error
    rows = content.get("Layers") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        keys = f"the keys {', '.join(map(repr, content))[:80]}" if isinstance(content, dict) else type(content).__name__
        raise _wrong("has no list of layers", keys)
    return EngineLayers(tuple(map(_layer, rows)), any(isinstance(row, dict) for row in rows))


def _layer(row: object) -> EngineLayer:
    if isinstance(row, str):
        return EngineLayer(row)
    if not isinstance(row, dict) or not isinstance(row.get("Name"), str):
        raise _wrong("has a layer without a name", repr(row)[:80])
    return EngineLayer(
        name=row["Name"],
        kind=_text(row.get("LayerType")),
        kernel=_text(row.get("TacticName")),
        sparse_weights=_flag(row.get("HasSparseWeights")),
        nodes=tuple(_NODE.findall(_text(row.get("Metadata")))),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _flag(value: object) -> bool | None:
    if isinstance(value, str):
        value = {"0": False, "1": True, "false": False, "true": True}.get(value.lower())
    return bool(value) if isinstance(value, int) else None


def _wrong(what: str, seen: str) -> SourceError:
    return SourceError(f"--engine-layers {what}", seen=seen, allowed=_ALLOWED, fix=_FIX)
