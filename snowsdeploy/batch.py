"""What a model takes at once: one tensor, or several under their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, final

import torch
from numpy.typing import NDArray
from torch import Tensor


@final
class Inputs:
    """Several inputs of the same items by their names; it is cut, moved and counted like one tensor.

    Args:
        tensors: Name -> `[items, ...]`, in the model's order.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)

    def __len__(self) -> int:
        """How many items."""
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, which: slice | list[int]) -> Inputs:
        """Some items."""
        return Inputs({name: tensor[which] for name, tensor in self.tensors.items()})

    def __repr__(self) -> str:
        """Names and shapes."""
        return f"<Inputs {', '.join(f'{n} {list(t.shape)}' for n, t in self.tensors.items())}>"

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Inputs:
        """The same on a device."""
        return Inputs({n: t.to(device, non_blocking=non_blocking) for n, t in self.tensors.items()})

    def pin_memory(self) -> Inputs:
        """The same in page-locked memory."""
        return Inputs({name: tensor.pin_memory() for name, tensor in self.tensors.items()})

    def split(self, size: int) -> Iterator[Inputs]:
        """Parts of at most so many items."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def numpy(self) -> dict[str, NDArray[Any]]:
        """Name -> array."""
        return {name: tensor.numpy() for name, tensor in self.tensors.items()}


# One tensor `[items, ...]` for a model with one input.
Batch: TypeAlias = Tensor | Inputs


def tensors_of(batch: Batch) -> tuple[Tensor, ...]:
    """Its tensors, in the model's order."""
    return tuple(batch.tensors.values()) if isinstance(batch, Inputs) else (batch,)


def joined(parts: Sequence[Batch]) -> Batch:
    """One batch of several."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Inputs):
        return Inputs({n: torch.cat([p.tensors[n] for p in parts if isinstance(p, Inputs)]) for n in first.tensors})
    return torch.cat([p for p in parts if isinstance(p, Tensor)])
