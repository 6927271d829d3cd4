"""What a TensorRT engine made of the pattern: which pruned layers it found eligible, and which run a sparse kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from snowsdeploy.engines.account import EngineAccount
from snowsdeploy.engines.names import invented, read_name
from snowsdeploy.engines.states import UNKNOWN, State, merge, states_from_layers, states_from_log, together
from snowsdeploy.engines.tensorrt_layers import EngineLayers
from snowsdeploy.engines.tensorrt_log import BuildLog, Listing
from snowsdeploy.errors import SourceError
from snowsdeploy.layout.onnx_layout import GraphNodes, graph_nodes
from snowsdeploy.values import EngineEvidence, SparsityEvidence

_SHOWN = 3  # names in a note
Order = Mapping[str, int]  # node name -> place in the graph


def add_engine(
    sparsity: SparsityEvidence, account: EngineAccount, graph: GraphNodes | None = None
) -> tuple[SparsityEvidence, EngineEvidence]:
    """Fill `found` and `chosen` of the pruned layers, and count them.

    Args:
        sparsity: The layout of the file that the engine was built from.
        account: What is known of the engine.
        graph: Names of the file's nodes; read from `sparsity.file` when not given.

    Raises:
        SourceError: The account is of another model, or the file cannot be read.
    """
    graph = graph or graph_nodes(sparsity.file)
    order = _order(graph)
    require_same_model(account, graph, sparsity.file)
    nodes = {node for names in graph.products.values() for node in names}
    log = states_from_log(account.log, nodes, order) if account.log else dict.fromkeys(nodes, UNKNOWN)
    engine = states_from_layers(account.layers, nodes, order) if account.layers else dict.fromkeys(nodes, UNKNOWN)
    pruned = sparsity.expected or [row.name for row in sparsity.layers if row.layout_valid]
    products = {name: graph.products.get(name, ()) for name in pruned}
    states = {name: together(merge(log[node], engine[node]) for node in products[name]) for name in products}
    notes = list(_notes(account, products, order))
    if disagree := sum({log[node].chosen, engine[node].chosen} == {"yes", "no"} for node in nodes):
        notes.append(
            f"Log and inspector disagree on {disagree} kernels: the inspector, which reads the engine, counts."
        )
    return _filled(sparsity, states), _counted(sparsity, account, states, notes)


def require_same_model(account: EngineAccount, graph: GraphNodes, file: Path) -> None:
    """Raise when no layer of an account is a convolution or matrix product of a file.

    Raises:
        SourceError: It is of another model.
    """
    order, products = _order(graph), dict.fromkeys(node for names in graph.products.values() for node in names)
    for option, names in _own_names(account):
        parts = [read_name(name, order) for name in dict.fromkeys(names)]
        if names and all(products.keys().isdisjoint(part.nodes | part.covered) for part in parts):
            raise SourceError(
                f"{option} is of another model: none of its layers is in {file.name}",
                seen=_some(names),
                allowed=f"names of nodes such as {_some(products)}",
                fix=f"build the engine from {file}",
            )


def _order(graph: GraphNodes) -> Order:
    return {name: place for place, name in enumerate(graph.order) if name}


def _own_names(account: EngineAccount) -> Iterator[tuple[str, list[str]]]:
    """Names that come from the model, not from the compiler."""
    if account.log:
        names = [name for _, listing in _listings(account.log) for name in listing.names]
        yield "--engine-log", [name for name in names if not invented(name)]
    if account.layers:
        rows = [row for row in account.layers.layers if not row.copies]
        names = [node for row in rows for node in row.nodes or (row.name,)]
        yield "--engine-layers", [name for name in names if not invented(name)]


def _filled(sparsity: SparsityEvidence, states: Mapping[str, State]) -> SparsityEvidence:
    rows = [
        row.model_copy(update={"found": states[row.name].found, "chosen": states[row.name].chosen})
        if row.name in states
        else row
        for row in sparsity.layers
    ]
    return sparsity.model_copy(update={"layers": tuple(rows)})


def _counted(
    sparsity: SparsityEvidence, account: EngineAccount, states: Mapping[str, State], notes: list[str]
) -> EngineEvidence:
    broken = {row.name for row in sparsity.layers if not row.layout_valid}
    found, chosen = ([getattr(state, name) for state in states.values()] for name in ("found", "chosen"))
    return EngineEvidence(
        sources=account.sources,
        pruned=len(states),
        eligible=len(states.keys() - broken),
        found=found.count("yes"),
        found_unknown=found.count("unknown"),
        chosen=chosen.count("yes"),
        chosen_unknown=chosen.count("unknown"),
        engine_layers=len(account.layers.layers) if account.layers else None,
        notes=tuple(notes),
    )


def _notes(account: EngineAccount, pruned: Mapping[str, tuple[str, ...]], order: Order) -> Iterator[str]:
    if account.log:
        yield from _log_notes(account.log, order)
    if account.layers:
        yield from _layer_notes(account.layers, pruned, order)


def _log_notes(log: BuildLog, order: Order) -> Iterator[str]:
    if log.reason:
        yield f"Nothing is known from the build log: {log.reason}."
    for kind, listing in _listings(log):
        if not listing.complete:
            yield f"The log counts {listing.count} {kind} layers and names {len(listing.names)}; the rest is unknown."
    names = list(dict.fromkeys(name for _, listing in _listings(log) for name in listing.names))
    if strange := [name for name in names if not read_name(name, order)]:
        text = "names in the log are no node of the file, so what the log does not list is unknown"
        yield f"{len(strange)} {text}: {_some(strange)}."
    if regions := [name for name in names if read_name(name, order).covered]:
        yield f"The log lists regions by their ends and says nothing of the layers inside: {_some(regions)}."


def _listings(log: BuildLog) -> Iterator[tuple[str, Listing]]:
    for part in log.passes:
        if part.found is not None:
            yield "eligible", part.found
        if part.chosen is not None:
            yield "sparse", part.chosen


def _layer_notes(engine: EngineLayers, pruned: Mapping[str, tuple[str, ...]], order: Order) -> Iterator[str]:
    if not engine.detailed:
        yield "The inspector lists names only: build with --profilingVerbosity=detailed to learn the kernels."
        return
    named = {node for row in engine.layers for node in row.nodes or read_name(row.name, order).nodes}
    if absent := [layer for layer, nodes in pruned.items() if not named.issuperset(nodes)]:
        yield f"The inspector names no layer of the engine for {len(absent)} pruned layers: {_some(absent)}."


def _some(names: Iterable[str]) -> str:
    rows = list(dict.fromkeys(names))
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return ", ".join(name[:80] for name in rows[:_SHOWN]) + more
