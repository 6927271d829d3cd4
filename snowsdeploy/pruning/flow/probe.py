"""Ask operators for their derivatives, one by one, on the values that they have for one item."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx import Node
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from snowsdeploy.batch import Batch
from snowsdeploy.device import out_of_memory
from snowsdeploy.models.graph import evaluate
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.derivatives import Derivatives, Kind, Lacks

_NOTHING: Lacks = frozenset()
_EVERYTHING: Lacks = frozenset({"gradient", "forward", "reverse", "second"})
_TOLERANCE = 0.05  # relative, between |J v|^2 and <J^T J v, v>: a derivative that is silently zero is off by all of it


def probe_derivatives(graph: ProgramGraph, batch: Batch, state: Mapping[Node, Tensor] | None = None) -> Derivatives:
    """Ask every operator behind a layer for its derivatives, on the values that one item has there.

    An operator with the same arguments but for its shapes is asked once.

    Args:
        graph: The program's graph.
        batch: Its first item is used; all of it where the program takes a fixed number of items.
        state: Placeholder -> tensor; None for the program's own.
    """
    varying = set().union(*(graph.reached_from(c) for layer in graph.layers.values() for c in layer.calls))
    varying |= {n for n in graph.placeholders if n.name in graph.program.exported.graph_signature.inputs_to_parameters}
    one = batch if graph.program.signature.batch is not None else batch[:1]
    values: dict[Node, Any] = {**(state or graph.state_values()), **graph.given(one)}
    known: dict[object, Lacks] = {}
    lacks: dict[Node, Lacks] = {}
    for node in graph.nodes:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            evaluate([node], values)
        if node in varying and isinstance(node.target, torch._ops.OpOverload):
            inputs = [p for p in node.all_input_nodes if p in varying and _is_real(values[p])]
            key = _key(node, values, inputs)
            if key not in known:
                known[key] = _lacks(node, values, inputs) if inputs else _NOTHING
            if known[key]:
                lacks[node] = known[key]
        for dead in graph.dead_after[node]:
            del values[dead]
    return Derivatives(lacks)


def _is_real(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _key(node: Node, values: Mapping[Node, Any], inputs: Sequence[Node]) -> object:
    def describe(argument: Node) -> str:
        value = values[argument]
        kind = f"{value.dtype} {value.dim()} {value.device}" if isinstance(value, Tensor) else type(value).__name__
        return f"{kind} {argument in inputs}"

    described = torch.fx.node.map_arg((node.args, node.kwargs), describe)
    return node.target, repr(described)


def _lacks(node: Node, values: Mapping[Node, Any], inputs: Sequence[Node]) -> Lacks:
    """What one operator lacks, at the values that its arguments have."""
    generator = torch.Generator().manual_seed(0)
    given = {n: values[n] for n in node.all_input_nodes}
    v = [torch.randn(given[n].shape, generator=generator, device="cpu").to(given[n]) for n in inputs]
    with warnings.catch_warnings(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")  # what is not implemented is said by its absence
        leaves = [given[n].detach().requires_grad_() for n in inputs]
        try:
            outputs = _run(node, {**given, **dict(zip(inputs, leaves, strict=True))})
            u = [torch.randn(y.shape, generator=generator, device="cpu").to(y).requires_grad_() for y in outputs]
            if not u:
                # PyTorch's own operators without gradient are steps and stops; what others do there is not known
                own = node.target._schema.name.startswith("aten::")  # type: ignore[union-attr]
                return _NOTHING if own or not _real_results(node, given) else _EVERYTHING
            if any(y.grad_fn is not None and "NotImplemented" in y.grad_fn.name() for y in outputs):
                return _EVERYTHING
            pulled = torch.autograd.grad(outputs, leaves, u, create_graph=True, materialize_grads=True)
        except RuntimeError as failure:
            _reraise_memory(failure)
            return _EVERYTHING
        tests: dict[Kind, Callable[[], bool]] = {
            "forward": lambda: _agree(outputs, leaves, pulled, _dual_tangents(node, given, inputs, v), v),
            "reverse": lambda: _agree(outputs, leaves, pulled, _twice_reversed(pulled, u, v), v),
            "second": lambda: _twice_reversed(pulled, leaves, v) is not None,
        }
        return frozenset(kind for kind, test in tests.items() if not _holds(test))


def _holds(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except RuntimeError as failure:
        _reraise_memory(failure)
        return False


def _reraise_memory(failure: RuntimeError) -> None:
    if out_of_memory(failure):
        raise failure


def _run(node: Node, values: dict[Node, Any]) -> list[Tensor]:
    """The operator's results that have a gradient."""
    evaluate([node], values)
    return [y for y in tree_leaves(values[node]) if isinstance(y, Tensor) and y.requires_grad]


def _real_results(node: Node, given: Mapping[Node, Any]) -> bool:
    values = dict(given)
    with torch.no_grad():
        evaluate([node], values)
    return any(_is_real(y) and y.numel() for y in tree_leaves(values[node]))


def _dual_tangents(
    node: Node, given: Mapping[Node, Any], inputs: Sequence[Node], v: Sequence[Tensor]
) -> list[Tensor | None]:
    with forward_ad.dual_level():
        duals = {n: forward_ad.make_dual(given[n].detach().requires_grad_(), t) for n, t in zip(inputs, v, strict=True)}
        return [
            None if (t := forward_ad.unpack_dual(y).tangent) is None else t.detach()
            for y in _run(node, {**given, **duals})
        ]


def _twice_reversed(pulled: Sequence[Tensor], by: Sequence[Tensor], v: Sequence[Tensor]) -> list[Tensor]:
    """Derivative by some tensors of `<J^T u, v>`."""
    pairs = [(g, t) for g, t in zip(pulled, v, strict=True) if g.requires_grad]
    if not pairs:
        return [torch.zeros_like(b) for b in by]
    ends, along = zip(*pairs, strict=True)
    return list(torch.autograd.grad(ends, by, along, retain_graph=True, materialize_grads=True))


def _agree(
    outputs: Sequence[Tensor],
    leaves: Sequence[Tensor],
    pulled: Sequence[Tensor],
    pushed: Sequence[Tensor | None],
    v: Sequence[Tensor],
) -> bool:
    """Whether `J v` belongs to the operator's `J^T`: `|J v|^2 = <J^T J v, v>`; of zero only where `J^T u` is too."""
    along = [torch.zeros_like(y) if t is None else t for y, t in zip(outputs, pushed, strict=True)]
    squares = _dot(along, along)
    if squares == 0.0:
        return not any(bool(g.any()) for g in pulled)
    back = torch.autograd.grad(outputs, leaves, along, retain_graph=True, materialize_grads=True)
    return abs(_dot(back, v) - squares) <= _TOLERANCE * squares


def _dot(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    return sum(float((a.detach().double() * b.detach().double()).sum()) for a, b in zip(one, other, strict=True))
