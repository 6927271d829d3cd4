"""Activations of the calibration images, carried front to back through the graph, one step a pruned layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, final

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.errors import NumericsError
from snowsdeploy.models.graph import evaluate
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.windows import as_tensor

Values = dict[Node, Any]


@final
class Activations:
    """The values that later nodes still need, for every calibration batch, at one position of the graph.

    Two of these run side by side: one through the dense model, one through the model pruned so far.
    """

    def __init__(self, graph: ProgramGraph, batches: Sequence[Tensor], state: Values) -> None:
        """Start in front of the first node.

        Args:
            graph: The program's graph.
            batches: Image batches `[batch, C, H, W]`.
            state: Placeholder -> tensor for parameters, buffers and constants.
        """
        self._graph = graph
        self._constants: Final[Values] = dict(state)
        with torch.no_grad():
            evaluate(graph.constant_nodes, self._constants)
        self._batches: list[Values] = [{graph.image: images} for images in batches]
        self._position = 0

    def __len__(self) -> int:
        return len(self._batches)

    def advance(self, node: Node) -> None:
        """Run every batch up to, and not including, `node`.

        Raises:
            NumericsError: An activation is NaN or Inf.
        """
        stop = self._graph.order[node]
        nodes = [n for n in self._graph.nodes[self._position : stop] if n not in self._constants]
        for values in self._batches:
            self._run(nodes, values)
            for dead in [n for n in values if self._graph.last_use(n) < stop]:
                del values[dead]
        self._position = max(self._position, stop)

    def value(self, placeholder: Node) -> Tensor:
        """A weight as this stream uses it."""
        weight = self._constants[placeholder]
        assert isinstance(weight, Tensor)
        return weight

    def set_weight(self, placeholder: Node, weight: Tensor) -> None:
        """Replace a weight; only nodes that have not run yet see it."""
        self._constants[placeholder] = weight

    def live_ins(self, batch: int, wanted: Iterable[Node]) -> Values:
        """The values a window reads, computed where a side branch has not run yet.

        Args:
            batch: Index of the calibration batch.
            wanted: Nodes that do not depend on the window's own weights.
        """
        values = self._batches[batch]
        missing = [n for n in wanted if n not in values and n not in self._constants]
        if missing:
            values = dict(values)
            self._run(self._needed(missing, values), values)
        return {n: values[n] if n in values else self._constants[n] for n in wanted}

    def finish(self, batch: int, weights: Mapping[Node, Tensor]) -> tuple[Tensor, ...]:
        """The program's outputs for a batch from here on, with some weights replaced; nothing is kept."""
        scope = {**self._constants, **self._batches[batch], **weights}
        with torch.no_grad():
            evaluate([n for n in self._graph.nodes[self._position :] if n not in self._constants], scope)
        return tuple(as_tensor(scope[n]) for n in self._graph.outputs)

    def _needed(self, missing: list[Node], values: Values) -> list[Node]:
        found: set[Node] = set()
        while missing:
            node = missing.pop()
            if node not in found and node not in values and node not in self._constants:
                found.add(node)
                missing.extend(node.all_input_nodes)
        return sorted(found, key=self._graph.order.__getitem__)

    def _run(self, nodes: list[Node], values: Values) -> None:
        scope = {**self._constants, **values}
        with torch.no_grad():
            evaluate(nodes, scope)
        for node in nodes:
            values[node] = scope[node]
            if isinstance(scope[node], Tensor) and not bool(torch.isfinite(scope[node]).all()):
                raise NumericsError(
                    "an activation is NaN or Inf on the calibration images",
                    seen=f"the output of {node.name}",
                    fix="check --mean and --std, the images, and the checkpoint",
                )
