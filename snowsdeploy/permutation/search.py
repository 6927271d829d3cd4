"""Which order of channels lets an N:M mask keep most: assignment, exchange, and kicks out of local optima.

The quality of an order is the score that the mask keeps, summed over rows and groups (Pool & Yu 2021, "efficacy").
Taking one channel out of every group, the best way to put them back is a linear assignment problem, solved exactly:
with t the n-th largest score of the m - 1 that stay, a channel of score x adds max(x - t, 0) in each row. Rounds of it
with other channels taken out (as Zhang et al. 2024 do for one channel a group) end where no exchange of two channels
gains either. From there the search is repeated after small random changes, and the best order is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.permutation.channels import Ids
from snowsdeploy.permutation.groups import Group

Scores = NDArray[np.float64]

_LEAST_GAIN = 1e-6  # of the kept score, below which a change is rounding


@dataclass(frozen=True)
class Search:
    """How long is searched. No limit is in seconds, so that results repeat.

    Attributes:
        patience: Rounds without a gain before pairs are exchanged.
        kicks: How often the search starts again near the best order.
        kicked: Share of the channels that a kick moves.
        work: Comparisons after which no kick begins.
        seed: Of the random choices.
    """

    patience: int = 12
    kicks: int = 20
    kicked: float = 0.1
    work: float = 2e9
    seed: int = 0


@dataclass(frozen=True)
class Found:
    """An order and what it is worth.

    Attributes:
        order: The old channel at each new place, `[channels]`.
        before: Kept score of the order as it was, a share of the whole.
        after: Kept score of `order`.
    """

    order: Ids
    before: float
    after: float


def group_scores(group: Group, scores: Mapping[str, Tensor]) -> Scores:
    """The scores of all layers that read a group, channel by channel.

    Args:
        group: The group.
        scores: Weight name -> score of each weight, `[K, C, ...]`.

    Returns:
        `[channels, rows]`.
    """
    parts = [scores[c.name].double().movedim(1, 0).flatten(1).cpu().numpy()[c.positions] for c in group.consumers]
    return np.concatenate(parts, axis=1)


def find_order(scores: Scores, pattern: Pattern, search: Search) -> Found:
    """Search an order of channels in whose consecutive groups of m the n highest scores of each row sum to most.

    Args:
        scores: `[channels, rows]`, not negative; channels a multiple of m.
        pattern: N:M.
        search: How long.
    """
    total = float(scores.sum())
    if total <= 0:
        return Found(np.arange(len(scores)), 1.0, 1.0)
    state = _State(scores, pattern)
    start = np.arange(len(scores))
    before = state.kept(start)
    rng = np.random.default_rng(search.seed)
    best = _descend(state, start, search, rng)
    value = state.kept(best)
    for _ in range(search.kicks):
        if state.work > search.work:
            break
        tried = _descend(state, _kick(best, search, rng), search, rng)
        reached = state.kept(tried)
        if reached > value * (1 + _LEAST_GAIN):
            best, value = tried, reached
    if value <= before * (1 + _LEAST_GAIN):
        best, value = start, before
    return Found(_tidy(best, pattern.m), before / total, value / total)


class _State:
    """The scores, and how many comparisons have been spent on them."""

    def __init__(self, scores: Scores, pattern: Pattern) -> None:
        self.scores, self.n, self.m = np.ascontiguousarray(scores), pattern.n, pattern.m
        self.work = 0.0

    def kept(self, order: Ids) -> float:
        """Kept score of an order."""
        self.work += self.scores.size * self.n
        columns = self.scores[order].reshape(-1, self.m, self.scores.shape[1])
        return float(sum(part.sum() for part in _largest(columns, self.n)))

    def thresholds(self, order: Ids, slots: Ids) -> Scores:
        """The n-th largest score of each group without one of its channels, `[groups, rows]`."""
        groups = order.reshape(-1, self.m)
        others = groups[np.arange(self.m) != slots[:, None]].reshape(len(groups), self.m - 1)
        return _largest(self.scores[others], self.n)[-1]

    def gains(self, channels: Ids, thresholds: Scores) -> Scores:
        """What each channel adds to each group, `[channels, groups]`."""
        columns = self.scores[channels]
        self.work += columns.size * len(thresholds)
        # max(x - t, 0) = (x - t + |x - t|) / 2, and the last term's sum is a distance
        apart = cdist(columns, thresholds, "cityblock")
        gains: Scores = (columns.sum(1)[:, None] - thresholds.sum(1) + apart) / 2
        return gains


def _largest(columns: Scores, n: int) -> list[Scores]:
    """The n largest of `[groups, channels, rows]` along channels, sorted: a network of maxima and minima."""
    found: list[Scores] = []
    for value in np.moveaxis(columns, 1, 0):
        rest = value
        for i, high in enumerate(found):
            found[i], rest = np.maximum(high, rest), np.minimum(high, rest)
        if len(found) < n:
            found.append(rest)
    return found


def _descend(state: _State, order: Ids, search: Search, rng: np.random.Generator) -> Ids:
    """Rounds of assignment until none gains, then exchanges of pairs; again while either gains."""
    value = state.kept(order)
    while True:
        order, value = _assign(state, order, value, search.patience, rng)
        exchanged = _exchange(state, order)
        reached = state.kept(exchanged)
        if reached <= value * (1 + _LEAST_GAIN):
            return order
        order, value = exchanged, reached


def _assign(state: _State, order: Ids, value: float, patience: int, rng: np.random.Generator) -> tuple[Ids, float]:
    idle = 0
    while idle < patience:
        slots = rng.integers(0, state.m, len(order) // state.m)
        places = np.arange(len(slots)) * state.m + slots
        gains = state.gains(order[places], state.thresholds(order, slots))
        channels, groups = linear_sum_assignment(gains, maximize=True)
        gain = float(gains[channels, groups].sum() - np.trace(gains))
        if gain > value * _LEAST_GAIN:
            order = order.copy()
            order[places[groups]] = order[places][channels]
            value, idle = value + gain, 0
        else:
            idle += 1
    return order, value


def _exchange(state: _State, order: Ids) -> Ids:
    """The best exchanges of two channels that touch no group twice, all at once."""
    m, count = state.m, len(order)
    gains = np.empty((count, count))  # [channel's place, place to put it]
    for slot in range(m):
        thresholds = state.thresholds(order, np.full(count // m, slot))
        gains[:, slot::m] = state.gains(order, thresholds)
    own = np.diag(gains)
    change = gains + gains.T - own[:, None] - own[None, :]
    change[np.arange(count)[:, None] // m == np.arange(count)[None, :] // m] = 0
    touched, order = np.zeros(count // m, dtype=bool), order.copy()
    for flat in np.argsort(-change, axis=None, kind="stable")[: 2 * count]:
        a, b = divmod(int(flat), count)
        if change[a, b] <= 0:
            break
        if not touched[a // m] and not touched[b // m]:
            order[[a, b]] = order[[b, a]]
            touched[[a // m, b // m]] = True
    return order


def _kick(order: Ids, search: Search, rng: np.random.Generator) -> Ids:
    """The order with some channels shuffled among their places."""
    places = rng.permutation(len(order))[: max(3, round(search.kicked * len(order)))]
    kicked = order.copy()
    kicked[places] = kicked[rng.permutation(places)]
    return kicked


def _tidy(order: Ids, m: int) -> Ids:
    """Ascending within groups, groups by their first channel: the same quality, and nothing moves without need."""
    groups = np.sort(order.reshape(-1, m), axis=1)
    return groups[np.argsort(groups[:, 0])].ravel()
