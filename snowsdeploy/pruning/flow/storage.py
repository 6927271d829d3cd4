"""Where values of calibration batches are kept: on the device, on the host, there in half precision, or on disk.

What is not on the device is read ahead: while a batch is computed with, the one that followed it last time is fetched.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor

from snowsdeploy.files import writing

StorageKind = Literal["memory", "host", "half", "disk", "recompute"]
Named = dict[str, Any]

ACTIVATION_FILES = re.compile(r"\d+\.(pt|new)")
_HALF_RANGE = 32768.0  # below float16's largest value, so that rounding cannot reach infinity


class AbstractStore(ABC):
    """Values by name for each calibration batch; what is loaded is what was saved last."""

    @abstractmethod
    def save(self, batch: int, values: Mapping[str, Any]) -> None:
        """Keep a batch's values in place of those that it had; tensors, and sizes as plain numbers."""

    @abstractmethod
    def load(self, batch: int) -> Named:
        """A batch's values; the caller may change the dictionary, not the tensors."""


@final
@dataclass(frozen=True)
class MemoryStore(AbstractStore):
    """References: nothing is copied."""

    _values: dict[int, Named] = field(default_factory=dict, repr=False)

    def save(self, batch: int, values: Mapping[str, Any]) -> None:
        """See `AbstractStore`."""
        self._values[batch] = dict(values)

    def load(self, batch: int) -> Named:
        """See `AbstractStore`."""
        return dict(self._values[batch])


@final
@dataclass(frozen=True)
class HostStore(AbstractStore):
    """Copies in the host's memory, page-locked for a GPU, so that transfers overlap.

    Attributes:
        half: Keep wider floating-point tensors as float16 with a scale each: a relative error of at most 2^-11.
    """

    half: bool = False
    _values: dict[int, dict[str, tuple[Any, float, Any]]] = field(default_factory=dict, repr=False)

    def save(self, batch: int, values: Mapping[str, Any]) -> None:
        """See `AbstractStore`."""
        self._values[batch] = {name: self._pack(value) for name, value in values.items()}

    def load(self, batch: int) -> Named:
        """See `AbstractStore`."""
        return {name: self._unpack(*packed) for name, packed in self._values[batch].items()}

    def _pack(self, value: Any) -> tuple[Any, float, Any]:  # noqa: ANN401 - sizes are values too
        if not isinstance(value, Tensor):
            return value, 1.0, None
        origin, scale = (value.dtype, value.device), 1.0
        if self.half and value.is_floating_point() and value.itemsize > 2:
            largest = float(value.abs().max()) if value.numel() else 0.0
            # small values too are moved into float16's normal range, where the relative error is bounded
            scale = largest / _HALF_RANGE if largest > 0 else 1.0
            if scale >= torch.finfo(value.dtype).tiny:  # below it there is no scale to divide by: kept as they are
                value = (value / scale).to(torch.float16)
        host = value.to("cpu")
        return (host.pin_memory() if origin[1].type == "cuda" else host), scale, origin

    @staticmethod
    def _unpack(value: Any, scale: float, origin: Any) -> Any:  # noqa: ANN401
        if origin is None:
            return value
        dtype, device = origin
        moved = value.to(device, non_blocking=True)
        return moved.to(dtype) * scale if moved.dtype != dtype else moved


@final
@dataclass(frozen=True)
class DiskStore(AbstractStore):
    """A file a batch, exact; only one batch is in memory at a time.

    Strides are kept too, since kernels for another layout round differently; safetensors would lose them.

    Attributes:
        folder: Exists; the caller removes it.
    """

    folder: Path
    _plain: dict[int, dict[str, Any]] = field(default_factory=dict, repr=False)
    _devices: dict[int, dict[str, torch.device]] = field(default_factory=dict, repr=False)

    def save(self, batch: int, values: Mapping[str, Any]) -> None:
        """See `AbstractStore`.

        Raises:
            OutputError: The disk is full.
        """
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        self._plain[batch] = {name: value for name, value in values.items() if name not in tensors}
        self._devices[batch] = {name: tensor.device for name, tensor in tensors.items()}
        path = self._path(batch)
        fresh = path.with_suffix(".new")
        # a copy each, since a view would be written with all of the memory that it looks into
        copies = {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}
        content = BytesIO()  # where a file cannot grow, PyTorch's own writer to it ends the process
        torch.save(copies, content)
        with writing(path):
            fresh.write_bytes(content.getbuffer())
        fresh.replace(path)  # the old file may be being read

    def load(self, batch: int) -> Named:
        """See `AbstractStore`."""
        loaded = torch.load(self._path(batch), weights_only=True)
        devices = self._devices[batch]
        return {**self._plain[batch], **{name: loaded[name].to(devices[name]) for name in devices}}

    def _path(self, batch: int) -> Path:
        return self.folder / f"{batch}.pt"


@cache
def _reader() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="read-ahead")


@final
class ReadAhead(AbstractStore):
    """Fetches in the background what was read next the last time."""

    def __init__(self, store: AbstractStore) -> None:
        """Around another store."""
        self._store = store
        self._saved: set[int] = set()
        self._next: dict[int, int] = {}
        self._last: int | None = None
        self._pending: tuple[int, Future[Named]] | None = None
        self._copies: torch.cuda.Stream | None = None  # where a GPU's copies run, beside its computations

    def save(self, batch: int, values: Mapping[str, Any]) -> None:
        """See `AbstractStore`."""
        if self._pending and self._pending[0] == batch:
            self._pending[1].exception()  # what it read is out of date
            self._pending = None
        self._store.save(batch, values)
        self._saved.add(batch)
        devices = [value.device for value in values.values() if isinstance(value, Tensor) and value.is_cuda]
        if devices and self._copies is None:
            self._copies = torch.cuda.Stream(devices[0])

    def load(self, batch: int) -> Named:
        """See `AbstractStore`."""
        if self._last is not None:
            self._next[self._last] = batch
        self._last = batch
        pending, self._pending = self._pending, None
        if pending and pending[0] != batch:
            pending[1].cancel()
            pending = None
        values = pending[1].result() if pending else self._fetch(batch)
        if self._copies is not None:
            current = torch.cuda.current_stream(self._copies.device)
            current.wait_stream(self._copies)
            for value in values.values():
                if isinstance(value, Tensor) and value.is_cuda:
                    value.record_stream(current)
        follows = self._next.get(batch, batch + 1)
        if follows != batch and follows in self._saved:
            self._pending = follows, _reader().submit(self._fetch, follows)
        return values

    def _fetch(self, batch: int) -> Named:
        if self._copies is None:
            return self._store.load(batch)
        torch.cuda.set_device(self._copies.device)  # a thread begins on the first GPU
        with torch.cuda.stream(self._copies):
            return self._store.load(batch)


@final
@dataclass(frozen=True)
class Storage:
    """Makes stores.

    Attributes:
        kind: `memory` of the device, `host`, `half`, `disk`, or `recompute`, which keeps nothing.
        folder: Of `disk`; exists, and is the caller's to remove.
    """

    kind: StorageKind = "memory"
    folder: Path | None = None

    def store(self, name: str) -> AbstractStore | None:
        """An empty store, in place of an earlier one of that name on disk; None where nothing is kept."""
        if self.kind == "memory":
            return MemoryStore()
        if self.kind in ("host", "half"):
            return ReadAhead(HostStore(half=self.kind == "half"))
        if self.kind == "recompute":
            return None
        assert self.folder is not None
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return ReadAhead(DiskStore(folder))


IN_MEMORY = Storage()
