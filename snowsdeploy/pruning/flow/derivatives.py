"""What the operators of a graph lack of derivatives, and what is solved in their place.

A Newton step needs gradients and Gauss-Newton products `v -> J^T D J v`. J v comes from forward mode where every
operator has it, else from two reverse passes. In front of an operator that allows neither, a window ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch.fx import Node

from snowsdeploy.errors import GraphError
from snowsdeploy.models.graph import operation_kind
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.windows import Window, cut_window

# `gradient`: J^T u. `forward`: J v by dual numbers. `reverse`: J v as the derivative of J^T u by u. `second`: the
# derivative of J^T u by the operator's inputs.
Kind = Literal["gradient", "forward", "reverse", "second"]
Lacks = frozenset[Kind]
NOTHING: Lacks = frozenset()

_WORDS: Mapping[Kind, str] = {
    "gradient": "no derivative",
    "forward": "no forward derivative",
    "reverse": "neither a forward nor a second derivative",
    "second": "no second derivative",
}


@dataclass(frozen=True)
class Derivatives:
    """What operators lack; one that is not in it lacks nothing.

    Attributes:
        lacks: Node -> the kinds of derivatives that its operator does not have.
    """

    lacks: Mapping[Node, Lacks] = field(default_factory=dict)

    def without(self, kind: Kind, nodes: Iterable[Node] | None = None) -> list[Node]:
        """The nodes, of some or of all, that lack a kind."""
        return [n for n in (self.lacks if nodes is None else nodes) if kind in self.lacks.get(n, NOTHING)]

    def products(self, window: Window) -> Literal["forward", "reverse"]:
        """How J v is computed in a window that `shortened` gave."""
        return "reverse" if self.without("forward", window.nodes) else "forward"

    def blocking(self, curvature: str, nodes: Iterable[Node] | None = None) -> dict[Node, Kind]:
        """The nodes, of some or of all, through which no Newton step can be taken, and what they lack.

        Args:
            curvature: `gauss-newton` or `hessian`.
            nodes: Of a window; None for all.
        """
        among = list(self.lacks if nodes is None else nodes)
        found: dict[Node, Kind] = dict.fromkeys(self.without("gradient", among), "gradient")
        if curvature == "hessian":
            return found | {n: "second" for n in self.without("second", among) if n not in found}
        no_forward = [n for n in self.without("forward", among) if n not in found]
        # one operator without forward mode asks for two reverse passes everywhere
        return found | ({n: "reverse" for n in self.without("reverse", among) if n not in found} if no_forward else {})

    def shortened(self, graph: ProgramGraph, window: Window, curvature: str) -> Window:
        """The window, or what of it lies in front of the operators that block a Newton step.

        The outputs that remain are kept, and the last counted operations in front of a blocking one are added. Where
        nothing of the kind follows the layers, or they lie on both sides, their own outputs are all there is.
        """
        blocking = self.blocking(curvature, window.nodes)
        if not blocking:
            return window
        behind = _behind(graph, blocking)
        kept = [n for n in window.outputs if n not in behind]
        free = any(n.meta["val"].dim() == 1 for n in window.weights)
        names = [graph.state_names[n] for n in window.weights if n in {graph.placeholder(w) for w in graph.layers}]
        if not any(call in behind for call in window.calls):
            counted = [
                n
                for n in window.nodes
                if n not in behind and (n in window.calls or operation_kind(n, graph.image_values) is not None)
            ]
            last = [n for n in counted if not graph.reached_from(n) & ({*counted, *kept} - {n})]
            reach = list(dict.fromkeys([*kept, *last]))
            if set(reach) != set(window.calls):
                return cut_window(graph, names, 0, until=reach, free=free)
        return cut_window(graph, names, 0)

    def exact_only(self, graph: ProgramGraph, window: Window, curvature: str) -> bool:
        """Whether a window was cut to its layers' own outputs, which least squares alone can solve."""
        if window.operations or set(window.outputs) != set(window.calls):
            return False
        return any(n in graph.reached_from(c) for n in self.blocking(curvature) for c in window.calls)

    def words(self, graph: ProgramGraph, window: Window, full: Window, curvature: str) -> str:
        """One phrase on how a window is solved, empty where nothing is lacking.

        Args:
            graph: The program's graph.
            window: From `shortened`.
            full: What it was made of.
            curvature: As there.
        """
        phrases = []
        if self.products(window) == "reverse" and curvature != "hessian" and window.outputs != window.calls:
            names = operator_names(self.without("forward", window.nodes))
            phrases.append(f"products by two reverse passes: {names} {_has(names)} {_WORDS['forward']}")
        blocking = self.blocking(curvature, full.nodes)
        if blocking:
            first = min(blocking, key=graph.order.__getitem__)
            why = f"{operator_name(first)}, which has {_WORDS[blocking[first]]}"
            exact = self.exact_only(graph, window, curvature)
            phrases.append(f"exact least squares alone in front of {why}" if exact else f"window ends before {why}")
        return "; ".join(phrases)

    def opaque(self, graph: ProgramGraph, nodes: Iterable[Node]) -> dict[Node, Node]:
        """The nodes whose way to an output leads through an operator without gradient, and one such operator."""
        walls = self.without("gradient")
        first = {n: next((w for w in walls if w in graph.reached_from(n) and w is not n), None) for n in nodes}
        return {n: wall for n, wall in first.items() if wall is not None}


ALL_DERIVATIVES = Derivatives()  # of a graph whose operators have them all


def require_gradients(graph: ProgramGraph, found: Derivatives, calls: Sequence[Node], output: Node) -> None:
    """Check that an output has gradients by some layers' outputs.

    Raises:
        GraphError: An operator between them has no derivative.
    """
    between = [w for w in found.without("gradient") if w is output or output in graph.reached_from(w)]
    for call in calls:
        wall = next((w for w in between if w in graph.reached_from(call)), None)
        if wall is not None:
            raise GraphError(
                "the loss has no gradient by a layer: an operator behind it has no derivative",
                seen=f"{operator_name(wall)} behind {call.name}",
                allowed="operators with a derivative between every layer and the first output",
                fix="choose a --selector that reads layers' inputs, such as sparsegpt, or give the operator a "
                "derivative by torch.library.register_autograd",
            )


def operator_name(node: Node) -> str:
    """`grid_sampler_2d`, or with its name space where it is not PyTorch's own."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    return target._schema.name.removeprefix("aten::")


def operator_names(nodes: Iterable[Node]) -> str:
    """Each name once."""
    return " and ".join(dict.fromkeys(map(operator_name, nodes)))


def _has(names: str) -> str:
    return "have" if " and " in names else "has"


def _behind(graph: ProgramGraph, nodes: Collection[Node]) -> set[Node]:
    """Some nodes and all that depend on them."""
    return set().union(*(graph.reached_from(n) for n in nodes))


def notes_of(phrases: Iterable[str], solves: int) -> list[str]:
    """Each phrase of `Derivatives.words` once, with how many of the solves have it."""
    counts = Counter(phrase for phrase in phrases if phrase)
    return [f"{phrase} ({count} of {solves} solves)" for phrase, count in counts.items()]
