"""A program's nodes with what the stages ask of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.batch import Batch, tensors_of
from snowsdeploy.models.graph import LAYERS, as_tensor, base_name, image_dependent, operation_kind, weight_argument
from snowsdeploy.models.program import Program

_PROBABILITIES = ("sigmoid", "log_sigmoid")  # like softmax, which counts as attention
_PRODUCTS = ("mul", "matmul", "bmm", "baddbmm", "div")


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or linear layer whose weight has a name.

    Attributes:
        name: As every report has it.
        weight: Name of the weight in the state dict.
        placeholder: Its node in the graph.
        calls: The nodes that multiply by it, in graph order.
    """

    name: str
    weight: str
    placeholder: Node
    calls: tuple[Node, ...]


@dataclass(frozen=True)
class ProgramGraph:
    """A program's nodes with what the stages ask of them, computed once."""

    program: Program

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Call nodes in topological order."""
        return tuple(n for n in self.program.exported.graph.nodes if n.op == "call_function")

    @cached_property
    def placeholders(self) -> tuple[Node, ...]:
        """Parameters, buffers, constants and what the model takes."""
        return tuple(n for n in self.program.exported.graph.nodes if n.op == "placeholder")

    @cached_property
    def order(self) -> dict[Node, int]:
        """Position of each call node."""
        return {node: index for index, node in enumerate(self.nodes)}

    def placeholder(self, weight: str) -> Node:
        """The placeholder of a named parameter."""
        return next(node for node, name in self.state_names.items() if name == weight)

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """The placeholders of what the model takes, in order."""
        by_name = {n.name: n for n in self.placeholders}
        return tuple(by_name[i] for i in self.program.exported.graph_signature.user_inputs if isinstance(i, str))

    def given(self, batch: Batch) -> dict[Node, Tensor]:
        """Placeholder -> tensor, of what the model takes."""
        return dict(zip(self.inputs, tensors_of(batch), strict=True))

    @cached_property
    def image_values(self) -> set[Node]:
        """Nodes that carry data of the items."""
        return image_dependent(self.nodes, *self.inputs)

    @cached_property
    def constant_nodes(self) -> tuple[Node, ...]:
        """Call nodes that depend on weights alone, neither on pixels nor on the batch size."""
        batched = set(self.inputs)
        for node in self.nodes:
            if any(parent in batched for parent in node.all_input_nodes):
                batched.add(node)
        return tuple(n for n in self.nodes if n not in batched)

    def batch_axis(self, node: Node) -> int:
        """The axis of a value that runs over the items: the first whose size says so.

        A module may put time in front, as `nn.MultiheadAttention` does, or fold windows of an image into the batch.
        """
        batch = as_tensor(self.inputs[0].meta["val"]).shape[0]
        shape = as_tensor(node.meta["val"]).shape
        return next((axis for axis, size in enumerate(shape) if _counts(size, batch)), 0)

    def reached_from(self, node: Node) -> set[Node]:
        """A call node and all whose value depends on it; sizes do not."""
        if node not in self._reached:
            self._reached[node] = image_dependent(self.nodes[self.order[node] + 1 :], node)
        return self._reached[node]

    @cached_property
    def _reached(self) -> dict[Node, set[Node]]:
        return {}

    def last_use(self, node: Node) -> int:
        """Position of the last node that reads a value; beyond the graph for outputs."""
        return max((self.order.get(user, len(self.nodes)) for user in node.users), default=-1)

    @cached_property
    def dead_after(self) -> dict[Node, list[Node]]:
        """Call node -> the call nodes whose values nothing after it reads."""
        ends: dict[Node, list[Node]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            last = self.last_use(node)
            if last < len(self.nodes):
                ends[self.nodes[last] if last >= 0 else node].append(node)
        return ends

    @cached_property
    def outputs(self) -> tuple[Node, ...]:
        """The program's output values."""
        node = next(n for n in self.program.exported.graph.nodes if n.op == "output")
        given = [n for n in node.args[0] if isinstance(n, Node)]
        return tuple(n for n in given if isinstance(n.meta.get("val"), Tensor))

    @cached_property
    def real_outputs(self) -> tuple[Node, ...]:
        """Those that have derivatives: computed from the images, of floating point."""
        return tuple(n for n in self.outputs if n in self.order and n in self.image_values and _is_real(n))

    @cached_property
    def state_names(self) -> dict[Node, str]:
        """Placeholder -> fully qualified name, for parameters, buffers and lifted constants."""
        signature = self.program.exported.graph_signature
        names = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        return {n: names[n.name] for n in self.placeholders if n.name in names}

    def state_values(self) -> dict[Node, Tensor]:
        """Placeholder -> tensor, for every parameter, buffer and constant."""
        state, constants = self.program.exported.state_dict, self.program.exported.constants
        return {n: (state[f] if f in state else constants[f]).detach() for n, f in self.state_names.items()}

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Weight name -> the layer, in the order of first use; a weight used by several calls is one layer."""
        calls: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            if base_name(node) in LAYERS and node in self.image_values:
                weight = weight_argument(node)
                calls[self.state_names.get(weight, "") if weight is not None else ""].append(node)
        return {
            weight: Layer(self.program.layer_name(weight), weight, self.placeholder(weight), tuple(nodes))
            for weight, nodes in calls.items()
            if weight
        }

    @cached_property
    def unnamed_calls(self) -> tuple[Node, ...]:
        """Convolution and linear nodes whose weight the graph computes or receives from the image."""
        named = {node for layer in self.layers.values() for node in layer.calls}
        return tuple(n for n in self.nodes if base_name(n) in LAYERS and n in self.image_values and n not in named)

    def classifiers(self) -> set[Node]:
        """Layer nodes with nothing but data movement and a final sigmoid or softmax between them and an output.

        They are the classifier, or several heads. A residual sum ends the search, and so does a product of two
        activations: what lies before them is the body. A sum of heads is still a head.
        """
        found: set[Node] = set()
        frontier, seen = list(self.outputs), set()
        while frontier:
            node = frontier.pop()
            if node in seen or node not in self.image_values:
                continue
            seen.add(node)
            kind = operation_kind(node, self.image_values)
            if base_name(node) in LAYERS:
                found.add(node)
                continue
            passes = kind not in ("norm", "activation") or base_name(node) in _PROBABILITIES
            if passes and not self._is_residual(node) and not self._is_gate(node):
                frontier.extend(node.all_input_nodes)
        return found

    def gives_scores(self) -> bool:
        """Whether the first output is a layer's own: no norm, residual sum or product of activations comes after it."""
        frontier, seen = list(self.outputs[:1]), set()
        while frontier:
            node = frontier.pop()
            if node in seen or node not in self.image_values:
                continue
            seen.add(node)
            if base_name(node) in LAYERS:
                return True
            several = base_name(node) == "div" and len(self._activations(node)) > 1
            if (
                operation_kind(node, self.image_values) == "norm"
                or self._is_residual(node)
                or self._is_gate(node)
                or several
            ):
                return False
            frontier.extend(node.all_input_nodes)
        return False

    def stems(self) -> set[Node]:
        """Layer nodes that read what the model takes, with nothing but data movement and normalisation before them."""
        found: set[Node] = set()
        raw = set(self.inputs)
        for node in self.nodes:
            if node not in self.image_values or not any(a in raw for a in node.all_input_nodes):
                continue
            if base_name(node) in LAYERS:
                found.add(node)
            elif operation_kind(node, self.image_values) in (None, "norm"):
                raw.add(node)
        return found

    def _is_residual(self, node: Node) -> bool:
        """Whether a sum adds something to what that was computed from, by a layer; not to the model's own input."""
        terms = self._activations(node) if base_name(node) in ("add", "sub") else []
        return any(
            one is not other and other in self.reached_from(one) and self._after_a_layer(one)
            for one in terms
            for other in terms
            if one in self.order
        )

    def _is_gate(self, node: Node) -> bool:
        """Whether a product multiplies two activations."""
        return base_name(node) in _PRODUCTS and len(self._activations(node)) > 1

    def _activations(self, node: Node) -> list[Node]:
        return [a for a in node.all_input_nodes if a in self.image_values]

    def _after_a_layer(self, node: Node) -> bool:
        return any(node is call or node in self.reached_from(call) for x in self.layers.values() for call in x.calls)


def _counts(size: int | torch.SymInt, batch: int | torch.SymInt) -> bool:
    """Whether an axis of this size can hold the items: a multiple of their number."""
    if isinstance(batch, torch.SymInt):
        return isinstance(size, torch.SymInt) and batch.node.expr.free_symbols <= size.node.expr.free_symbols
    return isinstance(size, int) and size % batch == 0


def _is_real(node: Node) -> bool:
    value = node.meta["val"]
    return isinstance(value, Tensor) and value.is_floating_point()


def output_shapes(program: Program) -> tuple[tuple[int | None, ...], ...]:
    """Of every output without the batch; None for an axis of any size."""
    return tuple(
        tuple(size if isinstance(size, int) else None for size in node.meta["val"].shape[1:])
        for node in ProgramGraph(program).outputs
    )
