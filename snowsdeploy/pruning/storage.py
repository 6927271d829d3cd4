"""Where values of calibration batches are kept: in memory, in half precision, or on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor

StorageKind = Literal["memory", "half", "disk", "recompute"]
Named = dict[str, Any]

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
class HalfStore(AbstractStore):
    """Wider floating-point tensors as float16 on the host with a scale each: a relative error of at most 2^-11."""

    _values: dict[int, dict[str, tuple[Any, float, Any]]] = field(default_factory=dict, repr=False)

    def save(self, batch: int, values: Mapping[str, Any]) -> None:
        """See `AbstractStore`."""
        self._values[batch] = {name: self._pack(value) for name, value in values.items()}

    def load(self, batch: int) -> Named:
        """See `AbstractStore`."""
        return {name: self._unpack(*packed) for name, packed in self._values[batch].items()}

    @staticmethod
    def _pack(value: Any) -> tuple[Any, float, Any]:  # noqa: ANN401 - sizes are values too
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.itemsize <= 2:
            return value, 1.0, None
        largest = float(value.abs().max()) if value.numel() else 0.0
        # small values too are moved into float16's normal range, where the relative error is bounded
        scale = largest / _HALF_RANGE if largest > 0 else 1.0
        return (value / scale).to("cpu", torch.float16), scale, (value.dtype, value.device)

    @staticmethod
    def _unpack(value: Any, scale: float, origin: Any) -> Any:  # noqa: ANN401
        if origin is None:
            return value
        dtype, device = origin
        return value.to(device, dtype) * scale


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
            OSError: The disk is full.
        """
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        self._plain[batch] = {name: value for name, value in values.items() if name not in tensors}
        self._devices[batch] = {name: tensor.device for name, tensor in tensors.items()}
        # a copy each, since a view would be written with all of the memory that it looks into
        torch.save({name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}, self._path(batch))

    def load(self, batch: int) -> Named:
        """See `AbstractStore`."""
        loaded = torch.load(self._path(batch), weights_only=True)
        devices = self._devices[batch]
        return {**self._plain[batch], **{name: loaded[name].to(devices[name]) for name in devices}}

    def _path(self, batch: int) -> Path:
        return self.folder / f"{batch}.pt"


@final
@dataclass(frozen=True)
class Storage:
    """Makes stores.

    Attributes:
        kind: `memory`, `half`, `disk`, or `recompute`, which keeps nothing.
        folder: Of `disk`; exists, and is the caller's to remove.
    """

    kind: StorageKind = "memory"
    folder: Path | None = None

    def store(self, name: str) -> AbstractStore | None:
        """An empty store, in place of an earlier one of that name on disk; None where nothing is kept."""
        if self.kind == "memory":
            return MemoryStore()
        if self.kind == "half":
            return HalfStore()
        if self.kind == "recompute":
            return None
        assert self.folder is not None
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return DiskStore(folder)


IN_MEMORY = Storage()
