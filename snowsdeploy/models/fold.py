"""Weights that a program computes from constants alone, computed once: they become parameters like any other.

Weight normalisation, spectral normalisation, standardised convolutions, slices of a packed projection and equalised
learning rates compute a layer's weight from other tensors at each call. Nothing of it depends on what the model is
given, so the value is a constant of the deployed model, and can be pruned.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, TensorArgument
from torch.fx import Graph, Node

from snowsdeploy.models.graph import LAYERS, base_name, evaluate, weight_argument

_PARAMETRIZED = re.compile(r"(.*)\.parametrizations\.(\w+)\..*")
_PARTS = ("_g", "_v", "_orig", "_bar", "_mu", "_raw")  # what normalisations call the parts of a weight


def fold_weights(exported: ExportedProgram) -> ExportedProgram:
    """A program whose layers have parameters for weights; itself where nothing is computed.

    Args:
        exported: Functional, with whole convolutions and linears; its graph is taken over, so it is of no use after.
    """
    if not any(True for _ in _computed(exported, exported.graph)):
        return exported
    module = exported.graph_module
    folder = _Folder(exported, module.graph, dict(exported.state_dict), dict(exported.constants))
    folder.fold()
    module.recompile()
    return ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=ExportGraphSignature(folder.specs, exported.graph_signature.output_specs),
        state_dict=folder.state,
        range_constraints=exported.range_constraints,
        module_call_graph=exported.module_call_graph,
        example_inputs=exported.example_inputs,
        constants=folder.constants,
        verifiers=exported.verifiers,
    )


def _computed(exported: ExportedProgram, graph: Graph) -> Iterator[Node]:
    """Nodes that give a layer its weight, and are no parameter but depend on none of the inputs."""
    signature = exported.graph_signature
    given = {name for name in signature.user_inputs if isinstance(name, str)}
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    known = {name for name, target in named.items() if target in exported.state_dict}
    varying = {node for node in graph.nodes if node.op == "placeholder" and node.name in given}
    found: dict[Node, None] = {}
    for node in graph.nodes:
        if any(parent in varying for parent in node.all_input_nodes):
            varying.add(node)
        weight = weight_argument(node) if base_name(node) in LAYERS else None
        if weight is None or weight in varying or not _is_real(weight):
            continue
        if weight.op == "call_function" or (weight.op == "placeholder" and weight.name not in known):
            found[weight] = None
    yield from found


def _is_real(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


@dataclass
class _Folder:
    """A program's graph that is changed, with what belongs to it."""

    exported: ExportedProgram
    graph: Graph
    state: dict[str, Tensor]
    constants: dict[str, Any]

    def fold(self) -> None:
        """Replace every computed weight, then forget what nothing reads."""
        self.specs = list(self.exported.graph_signature.input_specs)
        self._names = {s.arg.name: str(s.target) for s in self.specs if isinstance(s.arg, TensorArgument) and s.target}
        values = {
            node: self._tensor(self._names[node.name])
            for node in self.graph.nodes
            if node.op == "placeholder" and node.name in self._names
        }
        weights = list(_computed(self.exported, self.graph))
        sources = {weight: self._sources(weight) for weight in weights}
        computed = {weight: self._value(weight, values) for weight in weights}
        for weight in weights:
            self._replace(weight, sources[weight], computed[weight])
        self.graph.eliminate_dead_code()
        self._forget({source for nodes in sources.values() for source in nodes})

    def _tensor(self, name: str) -> Tensor:
        found = self.state[name] if name in self.state else self.constants[name]
        assert isinstance(found, Tensor)
        return found.detach()

    def _sources(self, weight: Node) -> set[Node]:
        """The placeholders that a weight is computed from."""
        found, frontier = set(), [weight]
        while frontier:
            node = frontier.pop()
            if node not in found:
                found.add(node)
                frontier.extend(node.all_input_nodes)
        return {node for node in found if node.op == "placeholder"}

    def _value(self, weight: Node, values: dict[Node, Tensor]) -> Tensor:
        needed, frontier = set(), [weight]
        while frontier:
            node = frontier.pop()
            if node.op == "call_function" and node not in needed:
                needed.add(node)
                frontier.extend(node.all_input_nodes)
        scope: dict[Node, Any] = dict(values)
        with torch.no_grad():
            evaluate([node for node in self.graph.nodes if node in needed], scope)
        found = scope[weight]
        assert isinstance(found, Tensor)
        return found.detach().clone(memory_format=torch.contiguous_format)

    def _replace(self, weight: Node, sources: set[Node], value: Tensor) -> None:
        users = [user for user in weight.users if base_name(user) in LAYERS and weight_argument(user) is weight]
        name = self._name(weight, sources, value)
        first = next(iter(self.graph.nodes))
        with self.graph.inserting_before(first):
            placeholder = self.graph.placeholder(f"p_{re.sub(r'[^0-9A-Za-z]+', '_', name)}_folded")
        placeholder.meta["val"] = weight.meta["val"]
        self.state[name] = torch.nn.Parameter(value, requires_grad=False)
        self.specs.insert(0, InputSpec(InputKind.PARAMETER, TensorArgument(placeholder.name), name))
        for user in users:
            user.replace_input_with(weight, placeholder)

    def _name(self, weight: Node, sources: set[Node], value: Tensor) -> str:
        """That of the largest tensor it is made of, without what marks that as a part; free in the state dict."""
        sizes = {self._names[n.name]: n.meta["val"].numel() for n in sources if n.name in self._names}
        largest = max(sizes, key=lambda name: (sizes[name], -len(name), name), default=weight.name)
        parametrized = _PARAMETRIZED.fullmatch(largest)
        name = f"{parametrized[1]}.{parametrized[2]}" if parametrized else largest
        for part in _PARTS:
            name = name.removesuffix(part)
        only = all(self._read_by(node) == {weight} for node in sources if self._names.get(node.name) == name)
        if name not in self.state or (only and name == largest and self.state[name].shape == value.shape):
            return name
        return next(free for n in range(len(self.state) + 1) if (free := f"{name}_{n}") not in self.state)

    def _read_by(self, node: Node) -> set[Node]:
        """The computed weights that are all that a tensor is read for; with what else reads it."""
        ends, frontier, seen = set(), [node], set()
        while frontier:
            current = frontier.pop()
            for user in current.users:
                if base_name(user) in LAYERS or user.op == "output":
                    ends.add(current)
                elif user not in seen:
                    seen.add(user)
                    frontier.append(user)
        return ends

    def _forget(self, sources: set[Node]) -> None:
        """Tensors that only computed weights were made of."""
        new = len(self.specs) - len(self.exported.graph_signature.input_specs)
        made = {str(spec.target) for spec in self.specs[:new]}
        for node in sources:
            if node.users or node.name not in self._names:
                continue
            name = self._names[node.name]
            self.graph.erase_node(node)
            self.specs = [s for s in self.specs if not (isinstance(s.arg, TensorArgument) and s.arg.name == node.name)]
            self.constants.pop(name, None)
            if name not in made:
                self.state.pop(name, None)
