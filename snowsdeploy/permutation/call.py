"""One node of the graph as a rule sees it: its inputs' channels, its arguments, and how to state its result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.models.graph import argument, base_name
from snowsdeploy.permutation.channels import Block, Ids, Ledger, Value

BATCH = 1_000_003  # stands for the batch in sizes: a prime that no axis of a model has as a factor

Values = Value | tuple[Value | None, ...] | None


def axis_sizes(tensor: Tensor) -> tuple[int, ...]:
    """Sizes of a traced tensor, with `BATCH` for the symbol of the batch."""
    return tuple(_size(s) for s in tensor.shape)


def _size(size: int | torch.SymInt) -> int:
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, BATCH)))


@dataclass(frozen=True)
class Call:
    """A node and what is known of its inputs.

    Attributes:
        node: A call node.
        known: Value of each node before it.
        ledger: What the rule says goes there.
    """

    node: Node
    known: Mapping[Node, Values]
    ledger: Ledger

    @property
    def name(self) -> str:
        """The operator's base name."""
        return base_name(self.node) or str(self.node.target)

    @property
    def reason(self) -> str:
        """Why channels that this operation holds fast cannot move."""
        return f"fixed by {self.name} ({self.node.name})"

    def argument(self, index: int, name: str, default: Any = None) -> Any:  # noqa: ANN401 - ATen arguments are of any type
        """An argument by position or name."""
        return argument(self.node, index, name, default)

    def value(self, index: int, name: str = "") -> Value | None:
        """An argument's channels; None when it is not one tensor."""
        found = self.argument(index, name)
        value = self.known.get(found) if isinstance(found, Node) else None
        return value if isinstance(value, Value) else None

    def required(self, index: int, name: str = "") -> Value:
        """An argument that is a tensor."""
        value = self.value(index, name)
        assert value is not None, f"{self.name}: argument {index} is no tensor"
        return value

    def inputs(self) -> list[Value]:
        """Every tensor that flows in."""
        values = [self.known.get(n) for n in self.node.all_input_nodes]
        flat = [v for value in values for v in (value if isinstance(value, tuple) else (value,))]
        return [v for v in flat if v is not None]

    @property
    def outputs(self) -> tuple[tuple[int, ...] | None, ...]:
        """Sizes of each output; None for what is not a tensor."""
        meta = self.node.meta.get("val")
        leaves = meta if isinstance(meta, (tuple, list)) else (meta,)
        return tuple(axis_sizes(leaf) if isinstance(leaf, Tensor) else None for leaf in leaves)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the first output."""
        first = self.outputs[0]
        assert first is not None
        return first

    def fix(self, blocks: Iterable[Block | None]) -> None:
        """These blocks cannot move, because of this operation."""
        for block in blocks:
            if block is not None:
                self.ledger.fix(block.ids, self.reason)

    def tie(self, a: Block | None, b: Block | None) -> None:
        """Two axes hold the same channels; where one has no ids, or not as many, the other cannot move."""
        if a is None or b is None or a.ids.size != b.ids.size:
            self.fix((a, b))
        else:
            self.ledger.tie(a.ids, b.ids)

    def result(self, blocks: Iterable[Block], sizes: Sequence[int] | None = None) -> Value:
        """An output: axes that are in no block cannot move."""
        sizes = tuple(self.sizes if sizes is None else sizes)
        return complete(self.ledger, blocks, sizes, self.reason)

    def results(self, first: Value) -> Values:
        """`first`, and for further outputs nothing is known."""
        meta = self.node.meta.get("val")
        if not isinstance(meta, (tuple, list)):
            return first
        return (first, *(None if s is None else self.result((), s) for s in self.outputs[1:]))


def complete(ledger: Ledger, blocks: Iterable[Block], sizes: Sequence[int], reason: str) -> Value:
    """A value of these blocks, every other axis immovable."""
    found = list(blocks)
    for block in found:
        ledger.keep(block.ids.reshape(1, -1))
    covered = {dim for block in found for dim in block.dims}
    for dim, size in enumerate(sizes):
        if dim not in covered and size > 1 and size % BATCH:
            found.append(Block((dim,), ledger.immovable((size,), reason)))
    return Value(tuple(sizes), tuple(found))


def moved(block: Block, places: Mapping[int, int]) -> Block:
    """The block with its axes at other places, ascending again."""
    dims = [places[d] for d in block.dims]
    order = sorted(range(len(dims)), key=dims.__getitem__)
    ids: Ids = block.ids.transpose(order)
    return Block(tuple(dims[i] for i in order), ids)
