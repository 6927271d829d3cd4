"""What the accounts of an engine say of each node: whether it was found eligible, and whether a sparse kernel runs it.

Absence is a statement only in a complete list that was understood: where a name could not be mapped to a node, or a
line was cut, what is not listed is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from snowsdeploy.engines.names import NamedNodes, read_name
from snowsdeploy.engines.tensorrt_layers import EngineLayer, EngineLayers
from snowsdeploy.engines.tensorrt_log import BuildLog, Listing
from snowsdeploy.values import Tristate


@dataclass(frozen=True)
class State:
    """Of a node or a layer."""

    found: Tristate = "unknown"
    chosen: Tristate = "unknown"


UNKNOWN = State()


def states_from_log(log: BuildLog, nodes: Iterable[str], order: Mapping[str, int]) -> dict[str, State]:
    """Found: by any pass. Chosen: the last pass that speaks of the node has the word, since it made the engine.

    Args:
        log: The build log.
        nodes: Nodes to speak of.
        order: Node name -> place in the graph, of all nodes.
    """
    passes = [(_read(part.found, order), _read(part.chosen, order)) for part in log.passes]
    return {node: _state_from_log(passes, node) for node in nodes}


def states_from_layers(engine: EngineLayers, nodes: Iterable[str], order: Mapping[str, int]) -> dict[str, State]:
    """Of the engine as it is, from the inspector; arguments as `states_from_log`."""
    layers: dict[str, list[EngineLayer]] = {}
    for layer in engine.layers:
        for node in () if layer.copies else set(layer.nodes) or read_name(layer.name, order).nodes:
            layers.setdefault(node, []).append(layer)
    return {node: _state_from_layers(layers.get(node, [])) for node in nodes}


def merge(log: State, layers: State) -> State:
    """Either account may find a layer eligible; of the choice the inspector knows best, since it reads the engine."""
    chosen = layers.chosen if layers.chosen != "unknown" else log.chosen
    accounts = {log.found, layers.found}
    found: Tristate = "yes" if "yes" in accounts | {chosen} else "no" if "no" in accounts else "unknown"
    return State(found, chosen)


def together(states: Iterable[State]) -> State:
    """A layer that several nodes compute holds only what all of them hold."""
    rows = list(states)
    return State(_all([s.found for s in rows]), _all([s.chosen for s in rows]))


@dataclass(frozen=True)
class _Said:
    """A listing in terms of nodes; `whole` when what it does not list is not meant."""

    named: NamedNodes
    whole: bool

    def of(self, node: str) -> Tristate:
        if node in self.named.nodes:
            return "yes"
        return "no" if self.whole and node not in self.named.covered else "unknown"


def _read(listing: Listing | None, order: Mapping[str, int]) -> _Said | None:
    if listing is None:
        return None
    parts = [read_name(name, order) for name in listing.names]
    named = NamedNodes(frozenset().union(*(p.nodes for p in parts)), frozenset().union(*(p.covered for p in parts)))
    return _Said(named, listing.complete and all(parts))


def _state_from_log(passes: list[tuple[_Said | None, _Said | None]], node: str) -> State:
    found = _any(said.of(node) for said, _ in passes if said is not None)
    chosen: Tristate = "no" if found == "no" else "unknown"
    for eligible, picked in passes:
        if picked is None:
            continue
        word, spoken_of = picked.of(node), "unknown" if eligible is None else eligible.of(node)
        if word == "yes" or spoken_of == "yes":
            chosen = word
        elif spoken_of == "unknown":  # this pass may be of another part of the network
            chosen = word if chosen in ("unknown", word) else "unknown"
    return State("yes" if chosen == "yes" else found, chosen)


def _state_from_layers(layers: list[EngineLayer]) -> State:
    if not layers:
        return UNKNOWN
    chosen = _any(_tristate(layer.sparse_kernel) for layer in layers)
    flags = [layer.sparse_weights for layer in layers if layer.sparse_weights is not None]
    found = _tristate(any(flags)) if flags else "unknown"
    return State("yes" if chosen == "yes" else found, chosen)


def _tristate(value: bool | None) -> Tristate:
    return "unknown" if value is None else "yes" if value else "no"


def _any(values: Iterable[Tristate]) -> Tristate:
    seen = set(values)
    return "yes" if "yes" in seen else "unknown" if "unknown" in seen or not seen else "no"


def _all(values: Iterable[Tristate]) -> Tristate:
    seen = set(values)
    return "no" if "no" in seen else "yes" if seen == {"yes"} else "unknown"
