"""Calibration over the processes that torchrun started: which batches and searches are whose, and sums over all.

Alone, nothing changes. Batches are dealt in turn, so that the first ones of all, and the last, are spread evenly. Every
process holds the same weights and vectors, since it computes them from the same sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class Launch:
    """A start of the processes by torchrun.

    Attributes:
        job: Names the job, the same after torchrun has started its processes again (`--max-restarts`).
        again: Whether it has.
    """

    job: str
    again: bool


_ALONE = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process shares nothing with the others and does not wait for them."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def world() -> int:
    """How many processes there are."""
    if _ALONE.get():
        return 1
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is; 0 writes."""
    return distributed.get_rank() if world() > 1 else 0


def number(batch: int) -> int:
    """The number among all batches of this process' own."""
    return batch * world() + rank()


def share(batches: int) -> int:
    """How many of the first so many batches are this process' own."""
    return max(0, -(-(batches - rank()) // world()))


def share_of_most(own: int) -> int:
    """How many batches the process with most of them has."""
    if world() == 1:
        return own
    most = torch.tensor(own, device="cpu")
    distributed.all_reduce(most, distributed.ReduceOp.MAX)
    return int(most)


def all_sum(tensor: Tensor) -> Tensor:
    """The sum over all processes, the same bits in each; in place where there are several."""
    if world() > 1:
        tensor = tensor.contiguous()
        distributed.all_reduce(tensor)
    return tensor


def sum_number(value: float) -> float:
    """`all_sum` of a number, in float64."""
    return value if world() == 1 else float(all_sum(torch.tensor(value, dtype=torch.float64, device="cpu")))


def from_first(value: T) -> T:
    """What the process that writes has, in all of them."""
    if world() == 1:
        return value
    box: list[T] = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def map_in_turn(function: Callable[[S], T], items: Sequence[S]) -> list[T]:
    """Each item's result in all processes, computed by one of them.

    Args:
        function: What it returns is sent to the others: small, and on the host.
        items: The same in all processes, dealt in turn.
    """
    own = [function(item) for item in items[rank() :: world()]]
    if world() == 1:
        return own
    all_of_them: list[list[T]] = [[] for _ in range(world())]
    distributed.all_gather_object(all_of_them, own)
    return [all_of_them[k % world()][k // world()] for k in range(len(items))]


def wait_for_all() -> None:
    """Until every process is here."""
    if world() > 1:
        distributed.barrier()


def in_turn(own: Sequence[Mapping[str, Tensor]], device: torch.device) -> Iterator[dict[str, Tensor]]:
    """The pieces of all processes in all of them, those of the first process first.

    Args:
        own: This process' pieces.
        device: Of the tensors.
    """
    for owner in range(world()):
        mine = owner == rank()
        box: list[Any] = [[{n: (t.shape, t.dtype) for n, t in piece.items()} for piece in own] if mine else None]
        if world() > 1:
            distributed.broadcast_object_list(box, src=owner)
        for number, shapes in enumerate(box[0]):
            empty = {n: torch.empty(shape, dtype=dtype, device=device) for n, (shape, dtype) in shapes.items()}
            piece = {n: t.contiguous() for n, t in own[number].items()} if mine else empty
            if world() > 1:
                for tensor in piece.values():
                    distributed.broadcast(tensor, src=owner)
            yield piece
