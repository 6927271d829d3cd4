"""Which channels may change places: sets of them, with every weight axis that moves along."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.permutation.axes import program_axes
from snowsdeploy.permutation.channels import Ids, Ledger


@dataclass(frozen=True)
class Member:
    """An axis of a state tensor whose channels move with a group.

    Attributes:
        name: State tensor.
        axis: Its axis.
        positions: Where channel 0, 1, ... of the group lies on it, `[channels]`.
    """

    name: str
    axis: int
    positions: Ids


@dataclass(frozen=True)
class Group:
    """Channels that may change places with each other.

    Attributes:
        channels: How many.
        members: All axes that move.
        consumers: Those of them that are the input channels of a layer to prune; channels `m k ... m k + m - 1` of the
            group are one group of m in each of these layers.
    """

    channels: int
    members: tuple[Member, ...]
    consumers: tuple[Member, ...]


@dataclass(frozen=True)
class Groups:
    """What can be permuted.

    Attributes:
        groups: In the graph's order of their first layer.
        refused: Layer to prune -> why none of its input channels can move.
    """

    groups: tuple[Group, ...]
    refused: Mapping[str, str]


def find_groups(graph: ProgramGraph, weights: Sequence[str], m: int) -> Groups:
    """Find the groups of a program.

    Args:
        graph: The program's graph.
        weights: Names of the weights that will be pruned, in graph order.
        m: Size of a sparsity group along axis 1.
    """
    axes = program_axes(graph)
    roots = _roots(axes.ledger)
    reasons = _reasons(axes.ledger, roots)
    cells = _cells(axes.ledger, roots, reasons)
    placed = {key: roots[ids] for key, ids in axes.state.items()}
    consumers = {name: placed[name, 1] for name in weights if (name, 1) in placed}
    groups = []
    for cell in _in_order(cells, consumers.values()):
        group = _group(cell, placed, consumers, m)
        if group is not None:
            groups.append(group)
    found = {c.name for g in groups for c in g.consumers}
    refused = {name: _refusal(consumers.get(name), reasons, m) for name in weights if name not in found}
    return Groups(tuple(groups), refused)


def _roots(ledger: Ledger) -> Ids:
    """The channel of each id: ids that are tied are one."""
    empty = np.empty(0, np.int64)
    left = np.concatenate([a for a, _ in ledger.ties] or [empty])
    right = np.concatenate([b for _, b in ledger.ties] or [empty])
    edges = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(ledger.count, ledger.count))
    labels: Ids = connected_components(edges, directed=False)[1].astype(np.int64)
    return labels


def _reasons(ledger: Ledger, roots: Ids) -> dict[int, str]:
    """Why a channel cannot move, for each that cannot."""
    reasons: dict[int, str] = {}
    for ids, reason in ledger.fixed:
        for root in np.unique(roots[ids]).tolist():
            reasons.setdefault(root, reason)
    for ids in ledger.kept.values():
        values, counts = np.unique(roots[ids], return_counts=True)
        for root in values[counts > 1].tolist():
            reasons.setdefault(root, "an axis holds it twice")
    return reasons


def _cells(ledger: Ledger, roots: Ids, fixed: Mapping[int, str]) -> list[list[int]]:
    """Channels that may change places: free, and on the same axes."""
    lying_on: dict[int, list[int]] = defaultdict(list)
    sets = {np.unique(roots[ids]).tobytes(): roots[ids] for ids in ledger.kept.values()}
    for number, members in enumerate(sets.values()):
        for root in members.tolist():
            if root not in fixed:
                lying_on[root].append(number)
    cells: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for root, numbers in lying_on.items():
        cells[tuple(numbers)].append(root)
    return list(cells.values())


def _in_order(cells: list[list[int]], consumers: Iterable[Ids]) -> list[list[int]]:
    """The cells that a layer reads, by the first of its layers; channels in that layer's order."""
    cell_of = {root: number for number, cell in enumerate(cells) for root in cell}
    found: dict[int, list[int]] = {}
    for axis in consumers:
        for number in dict.fromkeys(cell_of[root] for root in axis.tolist() if root in cell_of):
            found.setdefault(number, [root for root in axis.tolist() if cell_of.get(root) == number])
    return list(found.values())


def _group(
    cell: list[int], placed: Mapping[tuple[str, int], Ids], consumers: Mapping[str, Ids], m: int
) -> Group | None:
    reading = {name: where for name, axis in consumers.items() if (where := _where(cell, axis)) is not None}
    cell = _whole_groups(cell, list(reading.values()), m)
    if len(cell) < 2 * m:  # within one group of m the order means nothing
        return None
    members = [
        Member(name, axis, where) for (name, axis), ids in placed.items() if (where := _where(cell, ids)) is not None
    ]
    return Group(len(cell), tuple(members), tuple(x for x in members if x.axis == 1 and x.name in reading))


def _where(cell: list[int], axis: Ids) -> Ids | None:
    """Positions of the cell's channels on an axis; a kept set holds all of a cell or none."""
    position = {root: i for i, root in enumerate(axis.tolist())}
    if cell and cell[0] in position:
        return np.array([position[root] for root in cell], dtype=np.int64)
    return None


def _whole_groups(cell: list[int], positions: Sequence[Ids], m: int) -> list[int]:
    """The channels that make up the same whole groups of m in every layer, one group after the other."""
    stripes: list[set[frozenset[int]]] = []
    for where in positions:
        by_stripe: dict[int, list[int]] = defaultdict(list)
        for channel, position in enumerate(where.tolist()):
            by_stripe[position // m].append(channel)
        stripes.append({frozenset(s) for s in by_stripe.values() if len(s) == m})
    common = set.intersection(*stripes) if stripes else set()
    return [cell[channel] for stripe in sorted(common, key=min) for channel in sorted(stripe)]


def _refusal(axis: Ids | None, reasons: Mapping[int, str], m: int) -> str:
    if axis is None:
        return "its input channels are one"
    found = [reasons[root] for root in axis.tolist() if root in reasons]
    if found:
        return max(dict.fromkeys(found), key=found.count)
    return f"too few channels may change places: two whole groups of {m} are needed"
