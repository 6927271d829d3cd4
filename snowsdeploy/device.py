"""Where the solve runs: a GPU or the CPU, the memory that is left there, and images on their way to it."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, final, overload

import torch

from snowsdeploy.batch import Batch
from snowsdeploy.errors import UsageError
from snowsdeploy.machine import available_memory, resident_memory

CPU = torch.device("cpu")


def choose_device(name: str) -> torch.device:
    """The device of `--device`.

    Args:
        name: `auto` (the current GPU where PyTorch can use one), `cpu`, `cuda` or `cuda:N`.

    Raises:
        UsageError: There is no such GPU, or PyTorch cannot use it.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return CPU
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    current = torch.cuda.current_device() if count else 0
    device = torch.device("cuda" if name == "auto" else name)
    index = current if device.index is None else device.index
    if index >= count:
        raise UsageError(
            "--device names a GPU that PyTorch cannot use",
            seen=f"{name}; usable GPUs: {count}",
            allowed="auto, cpu" + "".join(f", cuda:{i}" for i in range(count)),
            fix="use --device cpu, or see what `snowsdeploy doctor` says of the driver",
        )
    return torch.device("cuda", index)


def wake(device: torch.device) -> None:
    """Run the first product of a backward pass, whose thread warns while it opens the GPU for itself."""
    if device.type != "cuda":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = torch.ones(1, 1, device=device, requires_grad=True)
        (x @ x).sum().backward()


def memory_used(device: torch.device) -> int:
    """Bytes of the device that this process has."""
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else resident_memory()


def memory_left(device: torch.device) -> int:
    """Bytes of the device that this process may still take."""
    if device.type != "cuda":
        return available_memory()
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + int(torch.cuda.memory_reserved(device)) - int(torch.cuda.memory_allocated(device))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on either kind of device."""
    text = str(error).lower()  # of PyTorch on either device, of the driver, of cuBLAS and its kin
    refused = any(t in text for t in ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed"))
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and refused)


def release_memory(device: torch.device) -> None:
    """Give back what the allocator holds and nothing uses: the holes between tensors that live long and short."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif trim := _malloc_trim():
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Of the C library, where it has one."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


@contextmanager
def matmul_tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 matrix products and convolutions may be computed in TF32 where the GPU has it."""
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = allowed
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


@final
class OnDevice(Sequence[Batch]):
    """Batches that lie in host memory and are copied when they are asked for, beside what the device computes."""

    def __init__(self, batches: Sequence[Batch], device: torch.device) -> None:
        """Page-locked copies where that makes the transfer asynchronous."""
        self._device = device
        self._batches = [b.pin_memory() for b in batches] if device.type == "cuda" else list(batches)

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> OnDevice: ...
    def __getitem__(self, index: int | slice) -> Batch | OnDevice:
        if isinstance(index, slice):
            return OnDevice(self._batches[index], self._device)
        return self._batches[index].to(self._device, non_blocking=True)
