"""Activations of the calibration images, carried front to back through the graph, one step a pruned layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, final

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.batch import Batch
from snowsdeploy.errors import NumericsError
from snowsdeploy.models.graph import as_tensor, evaluate, layer_input
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.storage import IN_MEMORY, Storage

Values = dict[Node, Any]


@final
class Activations:
    """The values that later nodes still need, for every calibration batch, at one position of the graph.

    Two of these run side by side: one through the dense model, one through the model pruned so far.
    """

    def __init__(
        self,
        graph: ProgramGraph,
        batches: Sequence[Batch],
        state: Values,
        storage: Storage = IN_MEMORY,
        name: str = "activations",
    ) -> None:
        """Start in front of the first node.

        Args:
            graph: The program's graph.
            batches: What the model takes.
            state: Placeholder -> tensor for parameters, buffers and constants.
            storage: Where values are between uses; where it keeps none they are computed from the images each time.
            name: Of the store.
        """
        self.graph = graph
        self._constants: Final[Values] = dict(state)
        with torch.no_grad():
            evaluate(graph.constant_nodes, self._constants)
        self._images = batches
        self._store = storage.store(name)
        self._position = 0
        self._named = {node.name: node for node in graph.nodes}
        calls = [call for layer in graph.layers.values() for call in layer.calls]
        self._finite = {*calls, *(layer_input(call) for call in calls), *graph.outputs}

    def __len__(self) -> int:
        return len(self._images)

    def items(self, batch: int) -> int:
        """How many images a batch has."""
        return len(self._images[batch])

    def advance(self, node: Node) -> None:
        """Run every batch up to, and not including, `node`.

        Raises:
            NumericsError: An activation is NaN or Inf.
        """
        stop = self.graph.order[node]
        if stop <= self._position:
            return
        if self._store is not None:
            for batch in range(len(self)):
                values = self._live(batch)
                self._run(self._between(self._position, stop), values)
                live = {n: v for n, v in values.items() if n not in self.graph.inputs}
                self._store.save(batch, {n.name: v for n, v in live.items() if self.graph.last_use(n) >= stop})
        self._position = stop

    def value(self, placeholder: Node) -> Tensor:
        """A weight as this stream uses it."""
        weight = self._constants[placeholder]
        assert isinstance(weight, Tensor)
        return weight

    def set_weight(self, placeholder: Node, weight: Tensor) -> None:
        """Replace a weight; only nodes that have not run yet see it."""
        self._constants[placeholder] = weight

    def holds(self, node: Node) -> bool:
        """Whether a value is at hand at the position: a weight, the images, or what has run and is still read."""
        order = self.graph.order
        return node not in order or node in self._constants or order[node] < self._position <= self.graph.last_use(node)

    def live_ins(self, batch: int, wanted: Iterable[Node]) -> Values:
        """The values a window reads, computed where a side branch has not run yet.

        Args:
            batch: Index of the calibration batch.
            wanted: Nodes that do not depend on the window's own weights.
        """
        values = self._live(batch)
        missing = [n for n in wanted if n not in values and n not in self._constants]
        if missing:
            self._run(self._needed(missing, values), values, drop=False)
        return {n: values[n] if n in values else self._constants[n] for n in wanted}

    def finish(self, batch: int, weights: Mapping[Node, Tensor]) -> tuple[Tensor, ...]:
        """The program's outputs for a batch from here on, with some weights replaced; nothing is kept."""
        scope = {**self._constants, **self._live(batch), **weights}
        with torch.no_grad():
            evaluate(self._between(self._position, None), scope, self.graph.dead_after.__getitem__)
        return tuple(as_tensor(scope[n]) for n in self.graph.outputs)

    def _between(self, start: int, stop: int | None) -> list[Node]:
        return [n for n in self.graph.nodes[start:stop] if n not in self._constants]

    def _live(self, batch: int) -> Values:
        """A batch's values at the position, and its images."""
        values: Values = {**self.graph.given(self._images[batch])}
        if self._store is None:
            self._run(self._between(0, self._position), values)
        elif self._position:
            values |= {self._named[name]: value for name, value in self._store.load(batch).items()}
        return values

    def _spoiled(self, node: Node, value: object) -> bool:
        """Whether a value is what a working model never has; masks of attention may hold infinity on the way."""
        if not isinstance(value, Tensor) or bool(torch.isfinite(value).all()):
            return False
        return node in self._finite or bool(torch.isnan(value).any())

    def _needed(self, missing: list[Node], values: Values) -> list[Node]:
        found: set[Node] = set()
        while missing:
            node = missing.pop()
            if node not in found and node not in values and node not in self._constants:
                found.add(node)
                missing.extend(node.all_input_nodes)
        return sorted(found, key=self.graph.order.__getitem__)

    def _run(self, nodes: list[Node], values: Values, *, drop: bool = True) -> None:
        """Evaluate nodes in graph order into `values`, dropping what nothing after them reads."""
        scope = {**self._constants, **values}
        for node in nodes:
            with torch.no_grad():
                evaluate([node], scope)
            values[node] = scope[node]
            if self._spoiled(node, scope[node]):
                raise NumericsError(
                    "an activation is NaN or Inf on the calibration images",
                    seen=f"the output of {node.name}",
                    allowed="finite values at every operation of the dense model",
                    fix="check --mean and --std, the images, and the checkpoint",
                )
            for dead in self.graph.dead_after[node] if drop else ():
                values.pop(dead, None)
                scope.pop(dead, None)
